#!/bin/sh
# What `peerdma boot -- CMD` promises: a command begins as after a login, and its end is ours.
#
#   ci/commands.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out"
failed=0

# boot NAME STATUS ARGUMENT...: standard output goes to OUT/NAME.
boot() {
    name=$1 wanted=$2
    shift 2
    echo "=== $name"
    status=0
    target/peerdma boot --kernel "${KERNEL:-lab}" "$@" </dev/null >"$out/$name" 2>"$out/$name.log" || status=$?
    [ "$status" != 130 ] || exit 130
    if [ "$status" = "$wanted" ]; then
        echo "$name: exit status $status, as it must be"
    else
        cat "$out/$name" "$out/$name.log"
        echo "$name: exit status $status, not $wanted"
        failed=1
    fi
}

boot world 0 --file ci/commands/world.sh "$@" -- world.sh
# The kernel's own lines are on the console, too.
if ! grep -v '^\[ *[0-9.]*\] ' "$out/world" | diff ci/commands/world.expected -; then
    echo "world: expected (<) and found (>)"
    failed=1
fi
boot status 9 "$@" -- sh -c 'sleep 1 & wait; exit 9'
# What a command leaves behind may go on talking; the guest ends with the command.
boot talkative 3 "$@" -- sh -c 'trap "" HUP; (while :; do echo x; done) & exit 3'
finding='--module examples/first-finding --file examples/first-finding/check.sh'
# shellcheck disable=SC2086 # the list is to be split
{
    boot finding 1 $finding "$@" -- sh -c 'check.sh copy_physical; exit 0'
    boot own-status 5 $finding "$@" -- sh -c 'check.sh copy_physical; exit 5'
}
exit $failed
