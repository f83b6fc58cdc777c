#!/bin/sh
# Checks the guest driver: what breaks rules stays in guest-driver/lab/, and the kernel's own style checker finds nothing.
# That one comes with the kernel's source, which is in the cache once a kernel has been built.
set -eu

cd "$(dirname "$0")/.."

# Only guest-driver/lab/ uses what peerdma_lab.h defines, and it hooks into the driver by eight functions at most.
names=$(sed -n 's/^#define \(PEERDMA_[A-Z0-9_]*\).*/\1/p; s/^struct \(peerdma_lab_[a-z_]*\) {/\1/p' \
    guest-driver/include/uapi/peerdma_lab.h)
if [ -z "$names" ] || grep -nwF "$names" guest-driver/*.[ch]; then
    echo "driver: what peerdma_lab.h defines belongs into guest-driver/lab/" >&2
    exit 1
fi
hooks=$(grep -c '(\*[a-z_]*)(' guest-driver/lab_ops.h)
if [ "$hooks" -gt 8 ]; then
    echo "driver: struct peerdma_lab_ops has $hooks hooks; eight are the most" >&2
    exit 1
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/peerdma
checker=${PEERDMA_KERNEL_TREE:+$PEERDMA_KERNEL_TREE/scripts/checkpatch.pl}
if [ ! -f "$checker" ]; then
    # The newest; what is half unpacked, or half removed, does not count.
    checker=$(ls "$cache"/sources/linux-*/scripts/checkpatch.pl 2>/dev/null |
        grep -v -e '\.partial/' -e '\.removed/' | sort -V | tail -n1)
fi
if [ -z "$checker" ]; then
    echo "checkpatch: SKIP: there is no kernel source in the cache yet (target/peerdma kernel build fetches it)"
    exit 0
fi
# BIT() does not exist for user space, which includes our headers too; locks are explained in kernel-doc comments.
common=SPDX_LICENSE_TAG,BIT_MACRO,UNCOMMENTED_DEFINITION
check() {
    ignore=$1
    shift
    perl "$checker" --no-tree --strict --terse --no-summary --show-types --color=never --ignore "$ignore" --file "$@"
}
# The one file that is for several versions of the kernel compares them.
check "$common,LINUX_VERSION_CODE,CONSTANT_COMPARISON" guest-driver/compat.h guest-driver/witness/compat.h
# shellcheck disable=SC2046 # names without blanks
check "$common" $(ls guest-driver/*.[ch] guest-driver/lab/*.[ch] guest-driver/witness/*.[ch] images/test-host/*.c ci/mistakes/*.c guest-driver/include/uapi/*.h | grep -v /compat.h)
echo "checkpatch: clean"
