#!/bin/sh
# The example drivers in a guest, as docs/your-driver.md runs them: what is right must pass without a finding, and what
# is wrong must end with the command's exit status and the finding that the page shows.
#
# KERNEL names another guest kernel than the lab's.
#
#   ci/examples.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out"
failed=0

# one NAME STATUS CLASS ARGUMENT...: CLASS is the finding's, or "none": any finding makes the status another than 0.
one() {
    name=$1 wanted=$2 class=$3
    shift 3
    echo "=== $name"
    status=0
    target/peerdma test --kernel "${KERNEL:-lab}" --out "$out/$name" "$@" || status=$?
    [ "$status" != 130 ] || exit 130
    if [ "$status" != "$wanted" ]; then
        echo "$name: exit status $status, not $wanted"
    elif grep "the console may not have sent all" "$out/$name/user/console.log"; then
        echo "$name: the last characters of the command's output can be missing"
    elif [ "$class" != none ] && ! grep -q "$class" "$out/$name/report.md"; then
        echo "$name: no finding $class"
    else
        echo "$name: exit status $status, finding: $class, as it must be"
        return
    fi
    failed=1
}

finding='--module examples/first-finding --file examples/first-finding/check.sh'
engine='--device ioat,channels=1 --module examples/engine-copy --file examples/engine-copy/check.sh'
# shellcheck disable=SC2086 # the lists are to be split
{
    one first-finding-right 0 none $finding "$@" -- check.sh copy
    one first-finding-wrong 1 iommu.unmapped $finding "$@" -- check.sh copy_physical
    one first-finding-short 1 witness.past-end $finding --iommu none "$@" -- check.sh copy_short
    one engine-copy-right 0 none $engine "$@" -- check.sh copy
    one engine-copy-wrong 1 iommu.stale $engine "$@" -- check.sh copy_early
}
# The same transfer in C, by the driver's header alone.
cc -std=gnu11 -Wall -Wextra -Werror -O2 -Iguest-driver/include/uapi examples/by-hand/p2p_copy.c -o "$out/p2p_copy"
one by-hand 0 none --file "$out/p2p_copy" "$@" -- p2p_copy
exit $failed
