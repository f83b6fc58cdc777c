#!/bin/sh
# Ports that do not do what their ACS control bits say: Linux decides as if they did, and exactly the tests whose data
# passes by them must fail. A lab that did not notice would pass all of them.
#
# KERNEL names another guest kernel than the lab's.
#
#   ci/broken.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out"
failed=0

# only PATTERN SCENARIO LOG: nothing is said about the SCENARIO but its tests, its files and what has the PATTERN.
only() {
    sed -n "/^$2: [^ ]* failed: /d; /^$2: findings: /d; /^$2: console log: /d; /^$2: /p" "$3" >"$3.besides"
    others=0
    grep -v -E -e "$1" "$3.besides" || others=$?
    [ "$others" = 1 ]
}

# one NAME SCENARIO PATTERN ARGUMENT...: what must fail is on stdin, a test in a line; what may be said besides about the
# scenario has the PATTERN.
one() {
    name=$1 scenario=$2 besides=$3
    shift 3
    echo "=== $name"
    sort >"$out/$name.wanted"
    status=0
    target/peerdma test --kernel "${KERNEL:-lab}" --scenario "$scenario" --topology "ci/broken/$name.toml" \
        --out "$out/$name" "$@" \
        >"$out/$name.ktap" 2>"$out/$name.log" || status=$?
    [ "$status" != 130 ] || exit 130
    sed -n 's/^  not ok [0-9]* \([^ ]*\).*/\1/p' "$out/$name.ktap" | sort >"$out/$name.failed"
    tail -1 "$out/$name.ktap"
    if [ "$status" != 1 ]; then
        cat "$out/$name.log"
        echo "$name: exit status $status, not 1"
    elif ! diff "$out/$name.wanted" "$out/$name.failed"; then
        echo "$name: these must fail and do not (<), or fail and must not (>)"
    elif ! only "$besides" "$scenario" "$out/$name.log"; then
        echo "$name: this must not be"
    else
        echo "$name: $(wc -l <"$out/$name.failed") tests fail, as they must, and no others"
        return
    fi
    failed=1
}

# Memory of one peer device, and the other's data to and from it.
shared='topology.route
topology.requests-by-bus-address
topology.requests-by-cpu-address
third-party.route
matrix.local-to-dynamic
matrix.local-to-pinned-revocable
matrix.scattered-to-dynamic
matrix.scattered-to-pinned-revocable
matrix.zone-device-to-dynamic
matrix.zone-device-to-pinned-revocable
matrix.zone-device-to-pinned-not-revocable
matrix.migrating-to-dynamic
matrix.migrating-to-pinned-revocable'

# Without an IOMMU the address says nothing about the way.
one ignores-redirect topology-switch-acs-physical '^$' "$@" <<END
$shared
END

# A request that is not turned around is an error of the port's, whose handling resets what is below it: an engine that
# is reset under its driver is of no use to the next test either.
one ignores-forwarding topology-switch-acs-physical \
    ' complained: .*(drivers/dma/ioat/init.c:[0-9]|Call Trace:)' "$@" <<END
$shared
third-party.kernel-decides-as-predicted
END
exit $failed
