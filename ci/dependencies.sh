#!/bin/sh
# Licences, sources and bans of what we depend on (deny.toml), and known vulnerabilities where their list can be reached.
# Without cargo-deny it says SKIP.
set -eu

cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
    echo "dependencies: SKIP: cargo-deny is not installed (make tools installs it)"
    exit 0
fi
cargo deny --workspace --locked check bans licenses sources
list=https://github.com/RustSec/advisory-db
if timeout 30 git ls-remote --exit-code "$list" HEAD >/dev/null 2>&1; then
    cargo deny --workspace --locked check advisories
else
    echo "advisories: SKIP: $list cannot be reached"
fi
