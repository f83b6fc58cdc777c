#!/bin/sh
# Drivers' mistakes in guests: each must make the finding, or the note, that stands beside it here, once, and nothing
# else may. A few guests, several mistakes in each.
#
#   ci/mistakes.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out"
: >"$out/wrong.txt"

# wrong TEXT: what is not as it must be with the guest in $name; all of it is repeated at the end.
wrong() {
    echo "$name: $1" | tee -a "$out/wrong.txt"
}

# guest NAME STATUS ARGUMENT...: on stdin a line for each finding and note of report.md, in their order, as a regular
# expression; findings come first.
guest() {
    name=$1 wanted=$2
    shift 2
    echo "=== $name"
    cat >"$out/$name.expected"
    status=0
    target/peerdma test --kernel "${KERNEL:-lab}" --out "$out/$name" --module ci/mistakes --file ci/mistakes/make.sh \
        --file ci/mistakes/unplug.sh "$@" </dev/null || status=$?
    [ "$status" != 130 ] || exit 130
    sed -n 's/^- `command`: //p' "$out/$name/report.md" >"$out/$name.said"
    # A copy that outlives the reset of its peer finds the peer's BARs gone: another class, on slow machines only, and
    # one finding for each at most. As little as one request may then have met the class before it.
    if [ "$name" = wrong ]; then
        for class in no-target bar-edge; do
            if [ "$(grep -c "pci\.$class: " "$out/$name.said")" -le 1 ]; then
                sed -i "/pci\.$class: /d" "$out/$name.said"
            fi
        done
    fi
    before=$(wc -l <"$out/wrong.txt")
    if [ "$status" != "$wanted" ]; then
        wrong "exit status $status, not $wanted"
    fi
    if [ "$(wc -l <"$out/$name.said")" != "$(wc -l <"$out/$name.expected")" ]; then
        wrong "$(wc -l <"$out/$name.said") findings and notes, not $(wc -l <"$out/$name.expected")"
    fi
    number=0
    while read -r pattern; do
        number=$((number + 1))
        if ! sed -n "${number}p" "$out/$name.said" | grep -Eqx -- "$pattern"; then
            wrong "line $number is not $pattern, but: $(sed -n "${number}p" "$out/$name.said")"
        fi
    done <"$out/$name.expected"
    if [ "$(wc -l <"$out/wrong.txt")" = "$before" ]; then
        echo "$name: as it must be"
    fi
}

from='#[0-9]+ 01:00\.0 peer0 MWr addr=0x[0-9a-f]+'
many='[0-9]{2,} times in all, 0x[0-9a-f]+\.\.=0x[0-9a-f]+, [0-9]{5,} bytes'

guest right 0 --iommu strict "$@" -- make.sh good good-list reset-self good <<END
#[0-9]+ 01:00\.0 peer0 M(Wr|Rd) .*: pci\.bus-master-off: Bus Master Enable was cleared with work under way, .*
END

# The IOMMU alone cannot know whether two mappings side by side are one buffer; the witness does.
guest unwitnessed 0 --iommu strict --no-witness "$@" -- make.sh edge-mapped good <<END
$from len=192: iommu\.mapping-edge: runs on from .*, mapped by request #[0-9]+, into .*, mapped separately by request #[0-9]+
END

guest wrong 1 --iommu strict "$@" -- make.sh edge-mapped good other-device direction edge-free unmapped-early merged-entries \
    physical-bar half-bar without-mastering reset-peer good <<END
$from len=192: witness\.past-end: byte 4096 of the transfer is behind the end of 4096 bytes at 0x[0-9a-f]+ \(DMA_FROM_DEVICE\), mapped .* by pid .*
$from len=8192: iommu\.unmapped: not mapped in domain [0-9]+; mapped for 02:00\.0 peer1 by request #[0-9]+; used by 01:00\.0 peer0
$from len=8192: iommu\.permission: mapped in domain [0-9]+ for reading only by request #[0-9]+; 8192 bytes at .*: the device may not write it
$from len=192: iommu\.(unmapped: not mapped in domain [0-9]+|stale: stale mapping, .*); what request #[0-9]+ mapped ends just before it; byte 8192 of the transfer is behind the end of 8192 bytes at .*
$from len=[0-9]+: iommu\.stale: stale mapping, unmapped by request #[0-9]+, .*; $many
peer0: device\.bad-descriptor: .*; 0xffffffffffffffff is DMA_MAPPING_ERROR: the mapping failed, and the driver did not check; 5 times in all
$from len=2048: iommu\.unmapped: not mapped in domain [0-9]+; it is the physical address of BAR 2 of peer1 \(02:00\.0\)
$from len=512: iommu\.unmapped: not mapped in domain [0-9]+; it is the physical address of guest RAM, or the low half of 0x[0-9a-f]+, an address of BAR 2 of peer1 \(02:00\.0\)
#[0-9]+ 01:00\.0 peer0 MRd addr=0x[0-9a-f]+ len=64 \(descriptor\): pci\.bus-master-off: Bus Master Enable is clear, .*
$from len=[0-9]+: pci\.memory-decode-off: peer1 \(02:00\.0\) would claim the address, but its Memory Space Enable is clear(; [0-9]+ times in all, .*)?
END

guest translated 1 --topology switch+translated --iommu none "$@" -- make.sh good physical-bar <<END
#[0-9]+ [0-9:.a-f]+ peer0 MWr addr=0x[0-9a-f]+ len=2048: pci\.turned-back: .*; it is the CPU physical address of BAR 2 of peer1 \([0-9:.a-f]+\), whose bus address is 0x[0-9a-f]+.*
END

guest pulled 1 --iommu strict "$@" -- unplug.sh <<END
$from len=[0-9]+: pci\.link-down: the link below port1 \(00:05\.0\) is down: .*; $many
END

if [ -s "$out/wrong.txt" ]; then
    echo "=== not as it must be"
    cat "$out/wrong.txt"
    exit 1
fi
