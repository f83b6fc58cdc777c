#!/bin/bash
# What .ci/run leaves out, for the night and for before a release: other kernels and distributions, the long scenarios,
# stalls, broken hardware. Goes on after a failure; the exit status says whether there was one.
#
#   ci/nightly.sh [PHASE...]    only these phases
set -euo pipefail
cd "$(dirname "$0")/.."
. ci/phases.sh

wanted=" $* "
# night NAME COMMAND...
night() {
    [ "$wanted" = "  " ] || [[ $wanted == *" $1 "* ]] || return 0
    go_on "$@"
}

night build make build
night lab-kernel target/peerdma kernel build
# Devices and processors that stand still now and then.
night jitter make vm-test KERNEL=lab ARGS=--jitter=1 OUT=target/vm-test-jitter
night broken make vm-broken
night random make vm-random COUNT=40
# As a user of another distribution meets it; skipped where its archive cannot be reached.
night trixie make vm-trixie
night noble make vm-noble
night stock-kernel target/peerdma kernel build --kernel stock
night vm-test-stock make vm-test KERNEL=stock ARGS="--all --jobs 1" OUT=target/vm-test-stock
night lts-kernel target/peerdma kernel build --kernel lts
night vm-test-lts make vm-test KERNEL=lts ARGS="--all --jobs 1" OUT=target/vm-test-lts
# A million operations of dmatest, and the VFIO selftests on I/OAT.
long=(ioat-million ioat-many-strict ioat-many-lazy kselftest-vfio-ioat kselftest-vfio-ioat-broken)
night vm-test-long make vm-test KERNEL=lab ARGS="--jobs 1 ${long[*]/#/--scenario }" OUT=target/vm-test-long
exit $failed
