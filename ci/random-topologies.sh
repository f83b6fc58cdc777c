#!/bin/sh
# Topologies that nobody has thought up, each in a guest of its own: everything that the lab predicts of them comes true.
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
last=$((seed + count - 1))
at=$seed
set -- "$@"
while [ "$at" -le "$last" ]; do
    case $((at % 4)) in
    1) iommu=none ;;
    2) iommu=passthrough ;;
    *) iommu=strict ;;
    esac
    file=$out/scenarios/random-$at.toml
    sed -e "s/^name = .*/name = \"random-$at\"/" -e "s/^topology = .*/topology = \"random-$at\"/" \
        -e "s/^iommu = .*/iommu = \"$iommu\"/" ci/scenarios/topology.toml >"$file"
    set -- "$@" --scenario "$file"
    at=$((at + 1))
done
status=0
target/peerdma test --out "$out" "$@" || status=$?
[ "$status" = 0 ] || {
    echo "random topologies from seed $seed on: exit status $status; a single one: ci/random-topologies.sh 1 SEED" >&2
    exit "$status"
}

# A handful may happen to be of one kind; with more of them, all kinds of answers must have come up.
paths() {
    grep -c -E "^\| [^|]*\| [^|]*\| $1" "$out/report.md" || true
}
direct=$(paths 'distance [0-9]+, bus address')
host=$(paths 'distance [0-9]+, (IOVA|CPU physical)')
refused=$(paths 'no way')
echo "$count topologies: $direct paths by bus address, $host through the host bridge, $refused refused"
[ "$count" -lt 3 ] || { [ "$direct" -gt 0 ] && [ "$host" -gt 0 ] && [ "$refused" -gt 0 ]; }
