#!/bin/bash
# The program without its source tree: `cargo install` from / out of a copy of this tree, the copy taken away, then the
# quick set with a home and a cache that are new. A new cache has no kernel: the distribution's is fetched.
#
#   ci/install.sh          cargo install --path: statically linked, as the tree's own settings say
#   ci/install.sh --git    cargo install --git, as a user does it: without these settings it is linked dynamically
set -euo pipefail
cd "$(dirname "$0")/.."

form=${1:---path}
top=$PWD
work=$(mktemp -d "${TMPDIR:-/tmp}/peerdma-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
copy=$work/tree
prefix=$work/prefix
mkdir "$copy" "$work/home"

git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from=- | tar --extract --directory="$copy"
case $form in
--path)
    # What does not depend on the place has been built here.
    export CARGO_TARGET_DIR=$top/target
    source=(--path "$copy/vmm/cli")
    wanted='static'
    ;;
--git)
    export CARGO_TARGET_DIR=$top/target/install
    # Cargo's own folder, too, so that its copy of the tree goes away with the other.
    cargo_home=$top/target/install/cargo
    mkdir -p "$cargo_home"
    for part in registry config.toml; do
        ours=${CARGO_HOME:-$HOME/.cargo}/$part
        [ ! -e "$ours" ] || ln -sfn "$ours" "$cargo_home/$part"
    done
    export CARGO_HOME=$cargo_home
    git -C "$copy" init --quiet
    git -C "$copy" add --all
    git -C "$copy" -c user.name=ci -c user.email=ci@localhost commit --quiet --message=copy
    source=(--git "file://$copy" peerdma)
    wanted='dynamic'
    ;;
*)
    echo "usage: ci/install.sh [--path|--git]" >&2
    exit 2
    ;;
esac
(cd / && cargo install --quiet --locked --no-track --root "$prefix" "${source[@]}")
mv "$copy" "$copy.away"
rm -rf "$top/target/install/cargo/git"

peerdma=$prefix/bin/peerdma
linked=static
! LC_ALL=C grep -aq '/lib64/ld-linux-x86-64.so' "$peerdma" || linked=dynamic
if [ "$linked" != "$wanted" ]; then
    echo "install: $form gave a program whose linking is $linked, not $wanted" >&2
    exit 1
fi
if LC_ALL=C grep -aq "$copy" "$peerdma"; then
    echo "install: the program knows the folder that it was built in: $copy" >&2
    exit 1
fi
cd "$work/home"
unset XDG_CACHE_HOME PEERDMA_KERNEL_TREE PEERDMA_DRIVER PEERDMA_TEST_HOST_KERNEL PEERDMA_SHARES
HOME=$work/home "$peerdma" test --out "$work/out"
echo "install: $form: works without its source tree ($linked)"
