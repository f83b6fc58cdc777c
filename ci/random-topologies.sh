#!/bin/sh
# Random topologies, and those of ci/topology-cases, each in a guest of its own: everything that the lab
# predicts of them comes true.
#
#   ci/random-topologies.sh COUNT [SEED [ARGUMENT...]]
#
# SEED is that of the first one [1]; `peerdma topology random-SEED` draws it. ARGUMENTs are for `peerdma test`.
set -eu

cd "$(dirname "$0")/.."
count=$1
seed=${2:-1}
[ $# -lt 2 ] || shift
shift
out=target/vm-random
rm -rf "$out"
mkdir -p "$out/scenarios"

# The scenario `topology`, once for each of them: one job, so that guests start beside each other and a nested test host
# starts once.
# scenario NAME TOPOLOGY IOMMU: writes its file.
scenario() {
    sed -e "s|^name = .*|name = \"$1\"|; s|^topology = .*|topology = \"$2\"|; s|^iommu = .*|iommu = \"$3\"|" \
        vmm/suite/scenarios/topology.toml >"$out/scenarios/$1.toml"
}

for file in ci/topology-cases/*.toml; do
    name=$(basename "$file" .toml)
    scenario "$name" "$PWD/$file" strict
    set -- "$@" --scenario "$out/scenarios/$name.toml"
done
last=$((seed + count - 1))
at=$seed
while [ "$at" -le "$last" ]; do
    case $((at % 4)) in
    1) iommu=none ;;
    2) iommu=passthrough ;;
    *) iommu=strict ;;
    esac
    scenario "random-$at" "random-$at" "$iommu"
    set -- "$@" --scenario "$out/scenarios/random-$at.toml"
    at=$((at + 1))
done
status=0
target/peerdma test --kernel "${KERNEL:-lab}" --out "$out" "$@" || status=$?
[ "$status" = 0 ] || {
    echo "random topologies from seed $seed on: exit status $status; a single one: ci/random-topologies.sh 1 SEED" >&2
    exit "$status"
}

# A handful may happen to be of one kind; with more of them, all kinds of answers must have come up.
paths() {
    awk -v cell="^[ ]*$1" -F '|' 'NF == 5 && $4 ~ cell { count++ } END { print count + 0 }' "$out/report.md"
}
direct=$(paths 'distance [0-9]+, bus address')
host=$(paths 'distance [0-9]+, (IOVA|CPU physical)')
refused=$(paths 'no way')
echo "$count topologies: $direct paths by bus address, $host through the host bridge, $refused refused"
[ "$count" -lt 3 ] || { [ "$direct" -gt 0 ] && [ "$host" -gt 0 ] && [ "$refused" -gt 0 ]; }
