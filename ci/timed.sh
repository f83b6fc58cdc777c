#!/bin/sh
# Runs a command, and notes its seconds in the file that PEERDMA_SHARES names, if it does: `peerdma test` prints them with
# its own share when a first run is over.
#
#   ci/timed.sh NAME COMMAND...
set -eu

name=$1
shift
begun=$(date +%s)
"$@"
seconds=$(($(date +%s) - begun))
if [ -n "${PEERDMA_SHARES:-}" ] && [ "$seconds" -gt 0 ]; then
    mkdir -p "$(dirname "$PEERDMA_SHARES")"
    echo "$seconds $name" >>"$PEERDMA_SHARES"
fi
