#!/bin/sh
# In a guest: transfers by hand, and their errors.
set -eu
fail() { echo "by-hand: $*"; exit 1; }
# refused STATUS TEXT COMMAND...
refused() {
    wanted=$1 text=$2
    shift 2
    status=0
    said=$("$@" 2>&1) || status=$?
    echo "$said"
    [ "$status" = "$wanted" ] || fail "$*: exit status $status, not $wanted"
    case $said in *"$text"*) ;; *) fail "$*: not in its output: $text" ;; esac
}

peerdmactl list
peerdmactl list --all --json
peerdmactl transfer peer0 peer1
peerdmactl --json transfer peer1 ram --size 4K
cat >/tmp/script <<'END'
# Every kind of memory, by every way that it has.
alloc peer1 64K --ranges 4 --name far
export far --name buffer
import peer0 buffer --name i
show i; map i --direction from-device; show
alloc 0 64K --name near
fill near --pattern 0x77 ; copy near i
verify far --pattern 0x77; verify buffer --pattern 0x77
checksum near; checksum far --device peer1
invalidate far; show i
copy near+0x100 i+0x200 --length 1K --channel 1
unmap i; map i; compare near+0x100 i+0x200 --length 1K
dump far+0x1f8 --length 16
alloc peer0 8K --kind system; alloc peer0 8K --kind coherent --name c
fill c --pattern 5; copy c m0; verify m0 --pattern 5; show m0
alloc peer1 64K --kind migrating --name roams
export roams; import peer0 b0; fill i0; move roams system; fill i0; verify roams; move roams local
register peer0 scratch_lo 0x1234; register peer0 scratch_lo; reg peer0 ch0
doorbell peer0 0
close i0; close b0; close roams
END
peerdmactl run /tmp/script
peerdmactl --json run /tmp/script >/tmp/json
grep -q '"kind":"' /tmp/json || fail "no kinds of addresses"
# A dma-buf goes to another process, which copies into it.
peerdmactl -c 'receive /tmp/s --name b; show b; import peer1 b --name i; fill i --pattern 0x42' &
peerdmactl -c 'alloc peer0 64K --name m; export m --name b; send b /tmp/s; close b' || fail send
wait
refused 2 'is not a peer device' peerdmactl alloc peer9 4K
refused 2 'is not an object' peerdmactl show m0
refused 2 "peer0's engine cannot name it" peerdmactl -c 'alloc peer0 4K; alloc peer1 4K; copy m0 m1'
refused 2 'leave an operand' peerdmactl -c 'alloc peer0 4K; fill m0 --length 5K'
refused 2 'is not a register' peerdmactl register peer0 dance
refused 1 'is 0x88, not 0x01' peerdmactl -c 'alloc peer0 4K; fill m0; verify m0 --pattern 1'
refused 1 'first difference is at offset 0x0' peerdmactl -c 'alloc peer0 4K; alloc peer0 4K; fill m0; fill m1 --pattern 1; compare m0 m1'
refused 1 'it is mapped' peerdmactl -c 'alloc peer0 4K --kind system; map m0'
refused 1 'local memory is full' peerdmactl alloc peer0 1G
refused 2 'unrecognized subcommand' peerdmactl dance
refused 0 'dma_buf_dynamic_attach' peerdmactl import --help
peerdmactl bench peer0 peer1 --times 4 --size 64K
peerdmactl bench peer0 ram --times 4 --size 64K
echo 'by-hand: all done'
