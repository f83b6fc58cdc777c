#!/bin/sh
# Installs the distribution packages that the lab needs (Debian 12 or newer, Ubuntu 22.04 or newer), as root or by
# sudo. Says exactly what is missing where it cannot. Does nothing, at once, when all is there.
#
#   ci/setup.sh            install what is missing
#   ci/setup.sh --check    only say what is missing; exit status 1 if something is
set -eu

check_only=no
case "${1-}" in
"") ;;
--check) check_only=yes ;;
*)
    echo "setup: unknown argument '$1' (there is only --check)" >&2
    exit 2
    ;;
esac

if [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    echo "setup: this lab runs on 64-bit x86 Linux; this machine is $(uname -s) $(uname -m)." >&2
    exit 1
fi

packages=
missing=

# need PACKAGE WHAT-FOR COMMAND...: each command must be found.
need() {
    package=$1
    purpose=$2
    shift 2
    for command; do
        if ! PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null 2>&1; then
            lack "$package" "$command" "$purpose"
            return
        fi
    done
}

# need_file PACKAGE WHAT-FOR FILE...: one of the files must exist.
need_file() {
    package=$1
    purpose=$2
    shift 2
    for file; do
        if [ -e "$file" ]; then
            return
        fi
    done
    lack "$package" "$1" "$purpose"
}

lack() {
    packages="$packages $1"
    missing="$missing
  $2 (package $1): $3"
}

need gcc "compiles the guest kernel and its modules, links Rust programs" gcc cc
need_file libc6-dev "static C library: our programs run where there is no other" /usr/lib/x86_64-linux-gnu/libc.a \
    /usr/lib64/libc.a /usr/lib/libc.a
need binutils "links the guest kernel" ld objcopy
need make "builds the guest kernel" make
need flex "builds the guest kernel's configuration program" flex
need bison "builds the guest kernel's configuration program" bison
need bc "computes constants of the guest kernel" bc
need_file libelf-dev "checks the guest kernel's object files" /usr/include/libelf.h
need xz-utils "unpacks the guest kernel's source" xz
need_file libcap-dev "static library: the kernel's own tests of iommufd run in the guest" \
    /usr/lib/x86_64-linux-gnu/libcap.a /usr/lib64/libcap.a /usr/lib/libcap.a
need_file uuid-dev "static library: the kernel's own tests of VFIO run in the guest" \
    /usr/lib/x86_64-linux-gnu/libuuid.a /usr/lib64/libuuid.a /usr/lib/libuuid.a
need qemu-system-x86 "emulates a test host where KVM cannot be used" qemu-system-x86_64
need pciutils "goes into the guest" lspci setpci
# The small Perl that every Debian has lacks modules that the kernel's style checker uses.
if ! perl -MEncode -MGetopt::Long -MTerm::ANSIColor -e 1 >/dev/null 2>&1; then
    lack perl perl "runs the kernel's style checker over the driver (make lint)"
fi
need_file debian-archive-keyring "verifies the guest kernel's source" \
    /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp
need_file ca-certificates "lets cargo and apt trust their servers" /etc/ssl/certs/ca-certificates.crt \
    /etc/pki/tls/certs/ca-bundle.crt

# The package busybox has a command of the same name that is linked dynamically and brings no libraries along.
busybox=$(command -v busybox 2>/dev/null || true)
if [ -z "$busybox" ]; then
    lack busybox-static busybox "goes into the guest"
elif LC_ALL=C grep -aq '/lib64/ld-linux-x86-64.so' "$busybox"; then
    lack busybox-static "a static busybox" "goes into the guest"
fi

# Rust is the user's own affair: we never install it.
rust=ok
wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname "$0")/../Cargo.toml")
if ! command -v cargo >/dev/null 2>&1 || ! command -v rustc >/dev/null 2>&1; then
    rust="Rust is not installed, or not in PATH."
else
    # rustc 1.95.0 (...): where rustup has no toolchain yet this says nothing.
    found=$(rustc --version 2>/dev/null | cut -d' ' -f2)
    oldest=$(printf '%s\n%s\n' "$wanted" "${found:-0}" | sort -V | head -n1)
    if [ "$oldest" != "$wanted" ]; then
        rust="Rust ${found:-"(no toolchain chosen)"} is too old: $wanted or newer is needed."
    fi
fi
if [ "$rust" != ok ]; then
    {
        echo "setup: $rust"
        echo "  Get rustup (a package on Debian 13 and Ubuntu 24.04; elsewhere by the Rust project's own installer),"
        echo "  then run: rustup default stable"
    } >&2
fi

finish() {
    [ "$rust" = ok ] || exit 1
    exit 0
}

[ -n "$packages" ] || finish

echo "setup: missing:$missing" >&2
if [ "$check_only" = yes ]; then
    exit 1
fi

# shellcheck disable=SC2086 # the list is ours, and is to be split
set -- $(printf '%s\n' $packages | sort -u)
if ! command -v apt-get >/dev/null 2>&1; then
    echo "setup: this is not a Debian or Ubuntu: install the above by this system's own means." >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root() { sudo "$@"; }
else
    echo "setup: neither root nor sudo. As root, run: apt-get install --no-install-recommends $*" >&2
    exit 1
fi
echo "setup: installing $*" >&2
# Old lists name packages that the mirror no longer has; a machine that has just been made has no lists at all.
as_root apt-get -q update
as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "$@"
exec "$0" --check
