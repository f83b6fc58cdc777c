# Phases of .ci/run and ci/nightly.sh: each says what it runs and how long that took, and a table closes the run.
# Sourced, by bash.

phases=()

# phase NAME COMMAND...: runs the command; a failure ends the run.
phase() {
    local name=$1 begun=$SECONDS code=0
    shift
    echo "=== $name: $*"
    "$@" || code=$?
    local took=$((SECONDS - begun))
    local how=done
    [ $code = 0 ] || how="FAILED ($code)"
    echo "=== $name: $how after $took s"
    phases+=("$(printf '%-22s %6d s  %s' "$name" "$took" "$how")")
    return $code
}

# go_on NAME COMMAND...: the same, but a failure only marks the run as failed.
failed=0
go_on() {
    phase "$@" || failed=1
}

# skipped NAME REASON: a phase that cannot run here.
skipped() {
    echo "=== $1: SKIP: $2"
    phases+=("$(printf '%-22s %6d s  SKIP: %s' "$1" 0 "$2")")
}

print_phases() {
    echo "=== phases"
    printf '%s\n' "${phases[@]}"
    printf '%-22s %6d s\n' all $SECONDS
}
trap print_phases EXIT
