#!/bin/bash
# The crates as they would be published: each is packed and built from its package, then the tests of all run from the
# unpacked packages, beside each other and without the source tree. What a test needs of the tree it skips.
#
#   ci/packages.sh [ARGUMENT...]    arguments go to cargo test
set -euo pipefail
cd "$(dirname "$0")/.."

# Not verified by cargo: it takes a package for one of a registry, whose content never changes for a version, and builds
# against what an earlier run left. Each is checked below instead.
rm -rf target/package
cargo package --workspace --locked --allow-dirty --quiet --no-verify
unpacked=target/unpacked
rm -rf "$unpacked"
mkdir -p "$unpacked"
names=()
for package in target/package/*.crate; do
    # Cargo gives all files of a package one old time, and takes what it built of them before for new.
    tar --extract --touch --gzip --file="$package" --directory="$unpacked"
    name=$(basename "$package" .crate)
    names+=("$name")
done
# A workspace of them all, in which each finds the others.
{
    echo '[workspace]'
    echo 'resolver = "3"'
    echo 'members = ["*-*.*.*"]'
    echo
    echo '[patch.crates-io]'
    for name in "${names[@]}"; do
        echo "${name%-*} = { path = \"$name\" }"
    done
    # How they are built is the tree's to say.
    echo
    sed -n '/^\[profile\.dev/,$p' Cargo.toml
} >"$unpacked/Cargo.toml"
cp Cargo.lock "$unpacked/"
cd "$unpacked"
export CARGO_TARGET_DIR=$OLDPWD/target
# One at a time: features that only another crate asks for are not there.
for name in "${names[@]}"; do
    cargo check --quiet --package "${name%-*}"
done
cargo test --workspace --no-fail-fast "$@"
echo "packages: ${#names[@]}, each built and tested by itself"
