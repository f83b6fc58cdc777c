#!/bin/sh
# What docs/interactive.md promises: transfers by hand, each mistake on purpose found, and files of the host's fetched,
# a module changed there and loaded again, and a result brought out, all in one guest each.
#
#   ci/interactive.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out/share"
out=$(cd "$out" && pwd)
kernel=${KERNEL:-lab}
failed=0

# guest NAME STATUS ARGUMENT...: standard output goes to OUT/NAME.
guest() {
    name=$1 wanted=$2
    shift 2
    echo "=== $name"
    status=0
    target/peerdma boot --kernel "$kernel" "$@" </dev/null >"$out/$name" 2>"$out/$name.log" || status=$?
    [ "$status" != 130 ] || exit 130
    if [ "$status" = "$wanted" ]; then
        echo "$name: exit status $status, as it must be"
    else
        cat "$out/$name" "$out/$name.log"
        echo "$name: exit status $status, not $wanted"
        failed=1
    fi
}

# has NAME TEXT...: each must be in what the guest printed.
has() {
    name=$1
    shift
    for text in "$@"; do
        grep -qF -- "$text" "$out/$name" || {
            echo "$name: not in its output: $text"
            failed=1
        }
    done
}

# In the switch by bus address, elsewhere through the host bridge.
guest by-hand 0 --file ci/interactive/by-hand.sh "$@" -- by-hand.sh
has by-hand 'through the host bridge' 'the CPU sees' 'a dma-buf of 64 KiB, local memory, from another process' 'all done'
guest by-hand-switch 0 --topology switch --iommu none "$@" -- peerdmactl transfer peer0 peer1
has by-hand-switch 'straight to peer1: neither root complex nor IOMMU' 'by bus address: straight through the switch'

# Each mistake by itself, and what must be found of it is.
guest misuse 1 --file ci/interactive/misuse.sh "$@" -- misuse.sh
has misuse 'every mistake was found'

# A module that is built again on the host while the guest runs.
cp examples/first-finding/first_finding.c examples/first-finding/Kbuild "$out/share/"
tree=$(target/peerdma kernel build --kernel "$kernel" --json | sed -n 's/.*"build_tree": "\(.*\)".*/\1/p')
build() { make -s -C "$tree" M="$out/share" modules >"$out/make.log" 2>&1; }
build
mkdir "$out/results"
# The guest says by a result that it has loaded the first one, and waits for the second.
(
    limit=300
    while [ ! -e "$out/results/loaded" ] && [ "$limit" -gt 0 ]; do
        sleep 1
        limit=$((limit - 1))
    done
    sed -i 's/#define PATTERN.*/#define PATTERN 0x77/' "$out/share/first_finding.c"
    build
    echo built >"$out/share/again"
) &
host=$!
ln -s ../../../Makefile "$out/share/outside"
guest reload 0 --share "$out/share" --share "$out/results" --results "$out/results" \
    --file ci/interactive/reload.sh "$@" -- reload.sh
wait "$host"
has reload 'first_finding is unloaded' 'leads out of the share' 'reference count' 'process' 'all done'
cmp "$out/share/first_finding.ko" "$out/results/first_finding.ko" || failed=1
[ "$(ls -A "$out/results")" = "$(printf 'first_finding.ko\nloaded\npeerdma.ko')" ] || {
    ls -lA "$out/results"
    echo "reload: not the results that were put"
    failed=1
}
exit $failed
