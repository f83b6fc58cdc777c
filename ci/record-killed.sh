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

# Milliseconds within which a recording is killed: fewer where a run is over before that.
limit=7000
round=1
while [ "$round" -le "$rounds" ]; do
	rm -rf "$folder/record"
	"$peerdma" test --scenario basic --record "$folder/record" --out "$folder/out" \
		>"$folder/log" 2>&1 &
	pid=$!
	until [ -s "$trace" ]; do
		kill -0 "$pid" 2>/dev/null || { cat "$folder/log"; echo "nothing was recorded"; exit 1; }
		sleep 0.01
	done
	milliseconds=$((round == 1 ? RANDOM % 90 : RANDOM % limit))
	sleep "$(printf '%d.%03d' $((milliseconds / 1000)) $((milliseconds % 1000)))"
	killed=0
	kill -9 "$pid" 2>/dev/null || killed=1
	code=0
	wait "$pid" 2>/dev/null || code=$?
	if [ "$killed" != 0 ] || [ "$code" != 137 ]; then
		limit=$((limit / 2))
		echo "the run was over before it was killed, after $milliseconds ms: again, within $limit ms"
		[ "$limit" -ge 100 ] || { echo "no run lasts long enough"; exit 1; }
		continue
	fi
	round=$((round + 1))
	status=0
	words=$("$peerdma" trace verify "$trace" 2>&1) || status=$?
	entries=$("$peerdma" trace show "$trace" 2>/dev/null | wc -l)
	echo "killed after $milliseconds ms: status $status, $entries entries: ${words##*$'\n'}"
	if [ "$status" != 1 ] || [[ $words != *"has no end mark"* ]]; then
		echo "a trace that was cut has to end with 1 and say where"
		exit 1
	fi
	# Where nothing had been written yet, nothing is proven, and the replay says so.
	if [ "$entries" = 0 ]; then
		wanted='2 error: *: nothing was compared*'
	else
		wanted='0 identical as far as the trace goes*'
	fi
	status=0
	words=$("$peerdma" replay "$trace" 2>&1) || status=$?
	# shellcheck disable=SC2053 # a pattern
	if [[ "$status ${words##*$'\n'}" != $wanted ]]; then
		echo "$words"
		echo "what there is does not replay"
		exit 1
	fi
done
