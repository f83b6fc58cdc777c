#!/bin/bash
# Runs all tests of the workspace, and closes with what could not run here, and the totals. What a test binary counts as
# ignored is skipped; so is a test that writes `SKIP NAME: REASON` to stderr, which libtest counts as passed.
#
#   ci/test.sh [ARGUMENTS OF CARGO TEST...]
set -euo pipefail

cd "$(dirname "$0")/.."
log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
"${CARGO:-cargo}" test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log" || code=$?
awk '
match($0, /(^|\.\.\. )SKIP [^ ]+: /) {
    text = substr($0, RSTART)
    sub(/^(\.\.\. )?SKIP /, "", text)
    skip[++skips] = text
    said++
    next
}
/^test .* \.\.\. .*ignored/ {
    name = $2
    reason = $0
    if (sub(/^.*ignored[, (]*(SKIP: )?/, "", reason) && reason != "") sub(/\)$/, "", reason)
    skip[++skips] = name ": " (reason == "" ? "no reason given" : reason)
}
/^test result: / {
    for (i = 2; i <= NF; i++) {
        if ($i == "passed;") passed += $(i - 1)
        if ($i == "failed;") failed += $(i - 1)
        if ($i == "ignored;") ignored += $(i - 1)
    }
}
END {
    if (skips) print "\nnot run here:"
    for (i = 1; i <= skips; i++) print "  SKIP " skip[i]
    printf "\nall tests: %d passed, %d failed, %d skipped\n", passed - said, failed, ignored + said
}
' "$log"
exit $code
