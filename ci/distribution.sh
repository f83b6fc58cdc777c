#!/bin/bash
# The quick set as a user of another distribution would run it first: `make vm-test` in a fresh root of that
# distribution, made by mmdebstrap. What is taken along is the source, Rust, cargo's registry, and the user's cache of
# kernels. The reports are in target/vm-test-SUITE afterwards.
#
#   ci/distribution.sh SUITE [ARGUMENT...]
#
# SUITE is Debian's (trixie), Ubuntu's (noble), or Debian's with QEMU from its backports (trixie-backports). The
# archives are those that this machine's apt uses, or PEERDMA_DEBIAN_MIRROR and PEERDMA_UBUNTU_MIRROR. Arguments go to
# `peerdma test`, variables PEERDMA_* and KERNEL go along. Needs root. Where it cannot be done this says SKIP and why, with exit status 0.
set -euo pipefail
cd "$(dirname "$0")/.."

# All mounts are made in a namespace of our own and go with it, and so do all processes, however this ends.
if [ "${1-}" != --inside ]; then
    suite=${1-}
    case "$suite" in
    '' | *[!a-z-]*)
        echo "usage: ci/distribution.sh SUITE [ARGUMENT...]" >&2
        exit 2
        ;;
    esac
    skip() {
        echo "=== $suite: SKIP: $1"
        exit 0
    }
    [ "$(id -u)" = 0 ] || skip "making a root takes root"
    why=$(unshare --mount --pid --fork --kill-child mount --make-rprivate / 2>&1) || skip "mounts are not allowed here: $why"
    if ! command -v mmdebstrap >/dev/null; then
        command -v apt-get >/dev/null || skip "there is no mmdebstrap, and no apt to install it"
        # Lists may be older than the archive, or not there yet.
        { apt-get -q update && apt-get -q -y --no-install-recommends install mmdebstrap; } >&2 ||
            skip "mmdebstrap cannot be installed"
    fi
    root=$(mktemp -d "${TMPDIR:-/tmp}/peerdma-$suite.XXXXXX")
    # No mount of the namespace is seen here: nothing outside of the folder can be reached through it.
    trap 'rm -rf --one-file-system "$root" "$root.log"' EXIT
    unshare --mount --pid --fork --kill-child "$0" --inside "$root" "$@" &
    child=$!
    # The folder goes then, too, when nothing writes to it any more. unshare itself ignores what asks it to end.
    trap 'kill -KILL "$child"; wait "$child" || true; exit 130' INT TERM
    status=0
    wait "$child" || status=$?
    # Its way to say that it was skipped, and it has said why.
    [ "$status" != 77 ] || status=0
    exit "$status"
fi

root=$2 suite=$3
shift 3
begun=$SECONDS
say() {
    echo "=== $suite: $*"
}
skip() {
    say "SKIP: $1"
    exit 77
}
phase() {
    local name=$1
    shift
    "$@"
    say "$name: $((SECONDS - begun)) s"
}

# The first archive of this machine's apt whose origin is $1. An archive whose lists it has not got has no origin yet:
# it is the distribution's own. As in images/src/kernel/apt.rs.
mirror() {
    local own=
    grep -qix "ID=$1" /etc/os-release && own=yes
    apt-get indextargets --format '$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(RELEASE)' 'Created-By: Packages' 2>/dev/null |
        awk -F'|' -v origin="$1" -v own="$own" '
            $3 == "Debian-Security" || $4 ~ /-security/ || $1 ~ /security\/?$/ || $1 ~ /^cdrom:/ { next }
            !found && (tolower($2) == origin || ($2 == "" && own)) { print $1; found = 1 }'
}

# The first keyring that is there.
keyring() {
    local file
    for file; do
        if [ -r "/usr/share/keyrings/$file" ]; then
            echo "/usr/share/keyrings/$file"
            return
        fi
    done
}

release=${suite%-backports}
# Where Linux' source comes from in any case: Ubuntu's archive has none that is new enough.
debian=${PEERDMA_DEBIAN_MIRROR:-$(mirror debian)}
case "$release" in
jammy | noble | plucky | questing | resolute)
    archive=${PEERDMA_UBUNTU_MIRROR:-$(mirror ubuntu)}
    components=main,universe
    keys=$(keyring ubuntu-archive-keyring.gpg)
    [ -n "$archive" ] || skip "this machine's apt knows no archive of Ubuntu's; PEERDMA_UBUNTU_MIRROR names one"
    [ -n "$keys" ] || skip "there is no keyring of Ubuntu's (package ubuntu-keyring or ubuntu-archive-keyring)"
    ;;
*)
    archive=$debian
    components=main
    keys=$(keyring debian-archive-keyring.gpg debian-archive-keyring.pgp)
    [ -n "$archive" ] || skip "this machine's apt knows no archive of Debian's; PEERDMA_DEBIAN_MIRROR names one"
    [ -n "$keys" ] || skip "there is no keyring of Debian's (package debian-archive-keyring)"
    ;;
esac
source_of() {
    echo "deb [signed-by=$keys] $archive $1 ${components//,/ }"
}

rust=$(rustc --print sysroot)
[ -x "$rust/bin/cargo" ] || skip "Rust is not a toolchain of its own, as rustup's, but part of this system ($rust)"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/peerdma
mkdir -p "$cargo_home" "$cache"

mount --make-rprivate /
log=$root.log
if ! mmdebstrap --variant=minbase --include=ca-certificates,make,git "--components=$components" "$release" "$root" \
    "$(source_of "$release")" >"$log" 2>&1; then
    # An archive that is not there is this machine's affair; all else is a failure.
    if grep -qE 'Could not resolve|Could not connect|Connection (refused|timed out)|Unable to connect' "$log"; then
        skip "the archive does not answer: $(grep -m1 -E '^(Err|E):' "$log")"
    fi
    cat "$log" >&2
    exit 1
fi
say "a fresh root: $((SECONDS - begun)) s"

# What is said about the archive and the way to it.
mkdir -p "$root/usr/share/keyrings" "$root$(dirname "$keys")"
[ -e "$root$keys" ] || cp "$keys" "$root$keys"
cp /etc/resolv.conf "$root/etc/resolv.conf"
apt-config dump --format '%F "%v";%n' Acquire::http::Proxy Acquire::https::Proxy >"$root/etc/apt/apt.conf.d/90proxy"
for folder in "$rust" "$cargo_home" "$cache"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
done
mount -o remount,bind,ro "$root$rust"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
# The work tree with its changes, and nothing that was built.
mkdir "$root/peerdma"
git ls-files -z | xargs -0 sh -c 'for file; do [ ! -e "$file" ] || printf "%s\0" "$file"; done' sh |
    tar --create --null --files-from - | tar --extract --directory "$root/peerdma"

# QEMU is to be the distribution's.
unset PEERDMA_QEMU
along=()
for variable in "${!PEERDMA_@}" CARGO_NET_OFFLINE KERNEL; do
    [ -z "${!variable-}" ] || along+=("$variable=${!variable}")
done
[ -z "$debian" ] || [ "$archive" = "$debian" ] || along+=("PEERDMA_DEBIAN_MIRROR=$debian")
in_root() {
    chroot "$root" env -i HOME="$HOME" XDG_CACHE_HOME="${cache%/peerdma}" CARGO_HOME="$cargo_home" LANG=C.UTF-8 \
        PATH="$rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        DEBIAN_FRONTEND=noninteractive "${along[@]}" "$@"
}

if [ "$suite" != "$release" ]; then
    source_of "$suite" >"$root/etc/apt/sources.list.d/backports.list"
    in_root apt-get -q update
    in_root apt-get -q -y --no-install-recommends -t "$suite" install qemu-system-x86
fi
begun=$SECONDS
phase "packages" in_root make -C /peerdma setup
begun=$SECONDS
phase "program" in_root make -C /peerdma build
in_root qemu-system-x86_64 --version | head -n1
begun=$SECONDS
status=0
in_root make -C /peerdma vm-test OUT=target/vm-test ARGS="$*" || status=$?
say "quick set: exit status $status after $((SECONDS - begun)) s"
in_root /peerdma/target/peerdma doctor || { status=1; say "doctor found something"; }
rm -rf "target/vm-test-$suite"
mkdir -p target
if [ -d "$root/peerdma/target/vm-test" ]; then
    cp -r "$root/peerdma/target/vm-test" "target/vm-test-$suite"
fi
exit $status
