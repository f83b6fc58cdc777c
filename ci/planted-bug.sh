#!/bin/sh
# Follows docs/planted-bug.md: its own commands, on the host and in a guest. The bug is found and breaks the data, the fixed
# driver is loaded without a new boot, and nothing is found of it.
#
#   ci/planted-bug.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out" target/mydriver target/move.ctl
mkdir -p "$out/results"
out=$(cd "$out" && pwd)

# block NAME: the commands behind the comment with this name.
block() {
    awk -v mark="<!-- $1 -->" '$0 == mark { found = 1 } found && /^```sh/ { inside = 1; next }
        inside && /^```/ { exit } inside' docs/planted-bug.md >"$out/block"
    [ -s "$out/block" ] || { echo "docs/planted-bug.md has no commands called $1" >&2; exit 1; }
    cat "$out/block"
}

plant=$(block 'host: plant')
fix=$(block 'host: fix')
see=$(block 'guest: see')
verify=$(block 'guest: verify')

sh -eu -c "$plant"
if cmp -s guest-driver/import.c target/mydriver/import.c; then
    echo "the bug is not planted: guest-driver/import.c has changed, docs/planted-bug.md has not"
    exit 1
fi
# In the guest: the bug, a word to the host, the fix.
cat >"$out/guest.sh" <<END
#!/bin/sh
$see
echo "with the bug: \$?"
guest-agent expect buffer.write-after-invalidate:peer0 || exit 1
guest-agent put /dev/null seen
until guest-agent get results/fixed /tmp/ 2>/dev/null; do sleep 1; done
$verify
echo "without it: \$?"
END
chmod +x "$out/guest.sh"
(
    limit=600
    while [ ! -e "$out/results/seen" ] && [ "$limit" -gt 0 ]; do
        sleep 1
        limit=$((limit - 1))
    done
    sh -eu -c "$fix" >"$out/make.log" 2>&1 && echo fixed >"$out/results/fixed"
) &
host=$!
status=0
target/peerdma boot --kernel lab --module target/mydriver --share target/mydriver --share target/move.ctl \
    --share "$out/results" --results "$out/results" --file "$out/guest.sh" "$@" -- guest.sh \
    >"$out/guest" 2>"$out/guest.log" </dev/null || status=$?
wait "$host" || { cat "$out/make.log"; exit 1; }
cat "$out/guest" "$out/guest.log"
failed=0
for line in 'with the bug: 1' 'without it: 0'; do
    grep -qF "$line" "$out/guest" || { echo "not in the guest's output: $line"; failed=1; }
done
[ "$(grep -c 'finding: .*buffer.write-after-invalidate' "$out/guest.log")" = 1 ] || {
    echo "not found exactly once"
    failed=1
}
[ "$status" = 0 ] || { echo "exit status $status, not 0"; failed=1; }
exit $failed
