#!/bin/sh
# What `peerdma boot -- CMD` promises: a command begins as after a login, and its end is ours.
#
#   ci/commands.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out"
failed=0

# boot NAME STATUS ARGUMENT...: standard output goes to OUT/NAME.
boot() {
    name=$1 wanted=$2
    shift 2
    echo "=== $name"
    status=0
    target/peerdma boot --kernel "${KERNEL:-lab}" "$@" </dev/null >"$out/$name" 2>"$out/$name.log" || status=$?
    [ "$status" != 130 ] || exit 130
    if [ "$status" = "$wanted" ]; then
        echo "$name: exit status $status, as it must be"
    else
        cat "$out/$name" "$out/$name.log"
        echo "$name: exit status $status, not $wanted"
        failed=1
    fi
}

boot world 0 --file ci/commands/world.sh "$@" -- world.sh
# The kernel's own lines are on the console, too.
if ! grep -v '^\[ *[0-9.]*\] ' "$out/world" | diff ci/commands/world.expected -; then
    echo "world: expected (<) and found (>)"
    failed=1
fi
boot status 9 "$@" -- sh -c 'sleep 1 & wait; exit 9'
# What a command leaves behind may go on talking; the guest ends with the command.
boot talkative 3 "$@" -- sh -c 'trap "" HUP; (while :; do echo x; done) & exit 3'
finding='--module examples/first-finding --file examples/first-finding/check.sh'
# shellcheck disable=SC2086 # the list is to be split
{
    boot finding 1 $finding "$@" -- sh -c 'check.sh copy_physical; exit 0'
    boot own-status 5 $finding "$@" -- sh -c 'check.sh copy_physical; exit 5'
}
# What is found goes to a file, the guest is frozen there, and what is known fails nothing.
stale='#[0-9]* 01:00.0 peer0 MWr .*: witness.unmapped: '
# shellcheck disable=SC2086 # the list is to be split
boot stopped 1 $finding --iommu none --findings "$out/stopped.jsonl" --stop-on finding "$@" -- \
    sh -c 'check.sh copy_physical; echo too far; exit 0'
grep -q '"class":"witness.unmapped","severity":"finding","expected":false,' "$out/stopped.jsonl" &&
    grep -q "the guest was frozen at: $stale" "$out/stopped.log" &&
    ! grep -q 'too far' "$out/stopped" || {
    echo "stopped: not as it must be"
    failed=1
}
printf 'witness.unmapped peer? # the example is wrong on purpose\niommu.stale # unused\n' >"$out/known.txt"
# shellcheck disable=SC2086 # the list is to be split
boot known 0 $finding --iommu none --suppress "$out/known.txt" "$@" -- sh -c 'check.sh copy_physical; exit 0'
grep -q "suppressed finding: $stale.*; the example is wrong on purpose" "$out/known.log" &&
    grep -q 'warning: nothing was found for the suppression iommu.stale (at .*:2): unused' "$out/known.log" || {
    echo "known: not as it must be"
    failed=1
}
# A built-in driver that is bound anew is watched like any other.
echo "=== rebound"
status=0
target/peerdma test --kernel "${KERNEL:-lab}" --iommu none --rebind virtio-rng --out "$out/rebound" "$@" -- \
    sh -c 'head -c 4096 /dev/hwrng >/dev/null' </dev/null >"$out/rebound.log" 2>&1 || status=$?
[ "$status" != 130 ] || exit 130
if [ "$status" != 0 ] || grep -q 'not-witnessed-bound-before' "$out/rebound/summary.json" ||
    ! grep -q '"witness-transactions": [0-9][0-9]' "$out/rebound/summary.json"; then
    cat "$out/rebound.log"
    echo "rebound: exit status $status, or not watched"
    failed=1
else
    echo "rebound: watched, as it must be"
fi
exit $failed
