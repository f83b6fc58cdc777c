#!/bin/bash
# What action.yml runs: its inputs, as variables, become arguments of `peerdma test`. The exit status is that of the run.
#
#   MODULE     modules, one a line             SCENARIO   in place of MODULE and TEST
#   TEST       a program and its arguments     TOPOLOGY, KERNEL, OUT
#   ARGUMENTS  more arguments
#   PEERDMA    the program, instead of the one built here
set -euo pipefail

peerdma=${PEERDMA:-$(dirname "$0")/../target/peerdma}
out=${OUT:-peerdma-report}
options=(--kernel "${KERNEL:-stock}" --out "$out")
[ -z "${TOPOLOGY:-}" ] || options+=(--topology "$TOPOLOGY")
# Both are lists of words, without quotes in them.
read -ra more <<<"${ARGUMENTS:-}"
read -ra command <<<"${TEST:-}"

if [ -n "${SCENARIO:-}" ]; then
    if [ -n "${MODULE:-}${TEST:-}" ]; then
        echo "::error::scenario goes without module and test: the scenario file names its own"
        exit 2
    fi
    options+=(--scenario "$SCENARIO")
elif [ -n "${MODULE:-}" ] && [ ${#command[@]} = 0 ]; then
    echo "::error::module needs test: the program that is to be run with it"
    exit 2
fi
while IFS= read -r module; do
    [ -z "$module" ] || options+=(--module "$module")
done <<<"${MODULE:-}"
options+=("${more[@]}")
if [ ${#command[@]} -gt 0 ]; then
    # A program of the guest's own needs no file.
    program=${command[0]}
    [ ! -e "$program" ] || options+=(--file "$program")
    options+=(-- "${program##*/}" "${command[@]:1}")
fi

status=0
"$peerdma" test "${options[@]}" || status=$?
if [ -n "${GITHUB_STEP_SUMMARY:-}" ] && [ -e "$out/report.md" ]; then
    cat "$out/report.md" >>"$GITHUB_STEP_SUMMARY"
fi
exit $status
