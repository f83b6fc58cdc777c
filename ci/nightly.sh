#!/bin/bash
# What .ci/run leaves out, for the night and for before a release: other kernels and distributions, the long scenarios,
# stalls, broken hardware, the documentation, the dependencies. Goes on after a failure; the exit status says whether there was one.
#
#   ci/nightly.sh [PHASE...]    only these phases
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/phases.sh

wanted=" $* "
# chosen NAME: whether this phase was asked for.
chosen() {
    [ "$wanted" = "  " ] || [[ $wanted == *" $1 "* ]]
}

# night NAME COMMAND...
night() {
    ! chosen "$1" || go_on "$@"
}

# with_tool TOOL NAME COMMAND...: skipped where TOOL is not installed.
with_tool() {
    local tool=$1
    shift
    if command -v "$tool" >/dev/null; then
        night "$@"
    elif chosen "$1"; then
        skipped "$1" "$tool is not installed (make tools installs it)"
    fi
}

night build make build
night lab-kernel target/peerdma kernel build
night links make links
night packages make packages
# Every interleaving of the two primitives that the runtime is built on.
night loom make loom
with_tool mdbook docs make docs
with_tool cargo-deny dependencies ci/dependencies.sh
# The guest read as if it were a real machine.
night dumps make vm-dumps
# Devices and processors that stand still now and then.
night jitter make vm-test KERNEL=lab ARGS=--jitter=1 OUT=target/vm-test-jitter
night broken make vm-broken
night random make vm-random COUNT=40
# As a user installs it, from a folder and from a repository; the distribution's kernel is fetched for an empty cache.
night install make vm-install
night install-git make vm-install ARGS=--git
# Other machines every night: the seed is the first line of the log.
night oracle make oracle COUNT=4000
night planted ci/oracle/planted.py
# As a user of another distribution meets it; skipped where its archive cannot be reached.
night trixie make vm-trixie
night noble make vm-noble
night stock-kernel target/peerdma kernel build --kernel stock
night vm-test-stock make vm-test KERNEL=stock ARGS="--all --jobs 1" OUT=target/vm-test-stock
night lts-kernel target/peerdma kernel build --kernel lts
night vm-test-lts make vm-test KERNEL=lts ARGS="--all --jobs 1" OUT=target/vm-test-lts
# Ten minutes of everything legal at once, with stalls; a long comparison of the witness with its model.
night stress make vm-test KERNEL=lab ARGS="--scenario stress --jobs 1 --jitter=1" OUT=target/vm-test-stress
night witness env PEERDMA_WITNESS_STEPS=400000 cargo test --locked --release -p device-models witness::tests::reference
# A million operations of dmatest, and the VFIO selftests on I/OAT.
long=(ioat-million ioat-many-strict ioat-many-lazy kselftest-vfio-ioat kselftest-vfio-ioat-broken)
night vm-test-long make vm-test KERNEL=lab ARGS="--jobs 1 ${long[*]/#/--scenario }" OUT=target/vm-test-long
exit $failed
