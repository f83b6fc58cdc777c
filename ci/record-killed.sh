#!/bin/bash
# Kills `peerdma test --record` at random moments, once within the first 100 ms of the recording:
# each trace must read to its end, and `peerdma trace verify` must say where that is.
set -euo pipefail
cd "$(dirname "$0")/.."

peerdma=${PEERDMA:-target/peerdma}
rounds=${1:-10}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trace=$folder/record/basic.pcapng.zst

for round in $(seq "$rounds"); do
	rm -rf "$folder/record"
	"$peerdma" test --scenario basic --record "$folder/record" --out "$folder/out" \
		>"$folder/log" 2>&1 &
	pid=$!
	until [ -s "$trace" ]; do
		kill -0 "$pid" 2>/dev/null || { cat "$folder/log"; echo "nothing was recorded"; exit 1; }
		sleep 0.01
	done
	milliseconds=$((round == 1 ? RANDOM % 90 : RANDOM % 7000))
	sleep "$(printf '%d.%03d' $((milliseconds / 1000)) $((milliseconds % 1000)))"
	kill -9 "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	status=0
	words=$("$peerdma" trace verify "$trace" 2>&1) || status=$?
	entries=$("$peerdma" trace show "$trace" 2>/dev/null | wc -l)
	echo "killed after $milliseconds ms: status $status, $entries entries: ${words##*$'\n'}"
	if [ "$status" != 1 ] || [[ $words != *"has no end mark"* ]]; then
		echo "a trace that was cut has to end with 1 and say where"
		exit 1
	fi
	"$peerdma" replay "$trace" | tail -1 | grep -q '^identical as far as the trace goes' || {
		echo "what there is does not replay"
		exit 1
	}
done
