#!/bin/sh
# Every scenario on every kernel, and one report of it all. Goes on after failures; the exit status is that of the
# merged report. KERNELS names other kernels, further arguments go to `peerdma test`.
#
#   ci/vm-test-all.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
kernels=${KERNELS:-lab debug stock lts}

# A report of an earlier run must not pass for one of this run.
rm -rf "$out"
runs=
for kernel in $kernels; do
    echo "=== all scenarios on the $kernel kernel"
    status=0
    # What takes many minutes and depends on the kernel least runs once.
    long=
    [ "$kernel" != lab ] || long=--long
    # shellcheck disable=SC2086 # nothing when empty
    target/peerdma test --all $long --kernel "$kernel" --out "$out/$kernel" "$@" || status=$?
    # The user has had enough of all of it.
    [ "$status" != 130 ] || exit 130
    runs="$runs $out/$kernel"
done
echo "=== all kernels"
# shellcheck disable=SC2086 # the list is to be split
exec target/peerdma report merge --out "$out" $runs
