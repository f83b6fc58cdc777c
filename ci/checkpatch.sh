#!/bin/sh
# Lets the kernel's own style checker read the guest driver. It comes with the kernel's source, which is in the cache
# once a kernel has been built.
set -eu

cd "$(dirname "$0")/.."
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
check "$common,LINUX_VERSION_CODE,CONSTANT_COMPARISON" guest-driver/compat.h
# shellcheck disable=SC2046 # names without blanks
check "$common" $(ls guest-driver/*.[ch] guest-driver/lab/*.[ch] images/test-host/*.c ci/mistakes/*.c guest-driver/include/uapi/*.h | grep -v /compat.h)
echo "checkpatch: clean"
