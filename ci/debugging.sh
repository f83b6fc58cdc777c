#!/bin/sh
# What docs/debugging.md promises: a guest that stops at a finding and is looked at from outside, and its kernel in gdb.
#
#   ci/debugging.sh OUT [ARGUMENT...]
set -eu

cd "$(dirname "$0")/.."
out=$1
shift
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
control=$out/control
failed=0
guest=

fail() {
    echo "$*"
    failed=1
}

ctl() { target/peerdma ctl --control "$control" "$@"; }

# A guest that this script leaves behind ends with it.
end() {
    [ -z "$guest" ] || kill "$guest" 2>/dev/null || true
}
trap end EXIT

# boot NAME ARGUMENT...: starts a guest; standard output goes to OUT/NAME.
boot() {
    name=$1
    shift
    echo "=== $name"
    target/peerdma boot --control "$control" "$@" </dev/null >"$out/$name" 2>"$out/$name.log" &
    guest=$!
}

# until_status TEXT: waits until the guest's status has it.
until_status() {
    limit=600
    until ctl status 2>/dev/null | grep -q "$1"; do
        kill -0 "$guest" 2>/dev/null || { cat "$out/$name.log"; echo "$name: the guest has ended"; exit 1; }
        limit=$((limit - 1))
        [ "$limit" -gt 0 ] || { ctl status; echo "$name: never $1"; exit 1; }
        sleep 0.5
    done
}

# ends STATUS: waits for the guest.
ends() {
    status=0
    wait "$guest" || status=$?
    guest=
    [ "$status" = "$1" ] || { cat "$out/$name" "$out/$name.log"; fail "$name: exit status $status, not $1"; }
}

# has FILE TEXT...: each must be in it.
has() {
    file=$1
    shift
    for text in "$@"; do
        grep -qF -- "$text" "$out/$file" || { cat "$out/$file"; fail "$file: not in it: $text"; }
    done
}

boot paused --pause-on finding "$@" -- peerdmactl misuse stale.use-after-unmap
until_status paused
ctl status >"$out/status"
has status 'unmapped' 'paused'
ctl mappings peer0 >"$out/mappings"
has mappings "mapped by the guest's kernel" 'mapped by the IOMMU'
ctl registers peer0 >"$out/registers"
has registers '00: f4 1a f0 10' 'REG_MAGIC' '0x414d4450'
ctl findings >"$out/findings"
has findings 'iommu.stale' 'before:'
ctl topology >"$out/topology"
has topology 'peer0' 'BAR 2 memory'
target/peerdma top --control "$control" --once >"$out/top"
has top 'PAUSED' 'peer0'
# Nothing moves: not even the clock of the devices.
ctl traffic --json | grep -v milliseconds >"$out/traffic-1"
sleep 1
ctl traffic --json | grep -v milliseconds >"$out/traffic-2"
cmp "$out/traffic-1" "$out/traffic-2" || fail 'the devices went on'
ctl mappings pear0 2>"$out/refused" && fail 'a function that is not there has mappings'
has refused 'did you mean peer0'
# There is a second finding behind the first.
limit=240
while kill -0 "$guest" 2>/dev/null && [ "$limit" -gt 0 ]; do
    # Refused while the guest runs: then it is asked again, until the guest ends.
    ctl resume 2>/dev/null || limit=$((limit - 1))
    sleep 0.5
done
[ "$limit" -gt 0 ] || { cat "$out/paused.log"; echo 'the guest does not go on'; exit 1; }
ends 1
has paused.log 'the guest and its devices are paused' 'the guest goes on'
[ ! -e "$control" ] || fail 'the socket is left behind'

if ! command -v gdb >/dev/null; then
    echo 'SKIP: gdb is not installed'
    exit $failed
fi
port=$((20000 + $$ % 20000))
run_gdb() {
    timeout 300 gdb -batch -nx "$@" </dev/null >"$out/$name.gdb" 2>&1 || fail "$name: gdb failed"
}
tree() { target/peerdma kernel build --kernel "$1" --json | sed -n 's/.*"build_tree": "\(.*\)".*/\1/p'; }

# Any kernel: functions and addresses.
boot gdb --kernel lab --gdb=$port "$@" -- sh -c 'while sleep 1; do cat /proc/uptime; done'
until_status running
sleep 5
run_gdb -ex 'set tcp connect-timeout 60' -ex "target remote 127.0.0.1:$port" -ex 'info threads' -ex 'break do_sys_openat2' \
    -ex continue -ex 'backtrace 6' -ex 'stepi' -ex 'x/i $pc' -ex delete -ex detach "$(tree lab)/vmlinux"
has gdb.gdb 'CPU#1' 'hit Breakpoint 1' 'do_syscall_64' 'do_sys_openat2+'
# It goes on without gdb, and also when gdb dies in the middle.
ctl status >"$out/after"
has after 'running'
status=0
timeout -s KILL 20 gdb -batch -nx -ex "target remote 127.0.0.1:$port" -ex 'break do_sys_openat2' -ex continue -ex continue \
    -ex continue -ex continue -ex 'shell sleep 30' "$(tree lab)/vmlinux" </dev/null >"$out/killed.gdb" 2>&1 || status=$?
[ "$status" = 137 ] || fail "gdb was not killed: exit status $status"
has killed.gdb 'hit Breakpoint'
until_status running
lines=$(wc -l <"$out/gdb")
sleep 5
[ "$(wc -l <"$out/gdb")" -gt "$lines" ] || fail 'the guest stands still behind a gdb that was killed'
ctl power-off
# Its command has not come to its end.
ends 4

# A kernel with debug information: lines and variables of the driver.
if ! ls "${XDG_CACHE_HOME:-$HOME/.cache}"/peerdma/kernels/gdb-*/vmlinux >/dev/null 2>&1; then
    echo 'SKIP: there is no kernel with debug information (peerdma kernel build --kernel gdb)'
    exit $failed
fi
boot lines --kernel gdb --gdb=$port "$@" -- sh -c 'sleep 20; peerdmactl transfer peer0 peer1'
until_status running
sleep 10
modules=$(sed -n 's/.*`lx-symbols \([^`]*\)`.*/\1/p' "$out/lines.log")
# shellcheck disable=SC2086 # one word each
run_gdb -iex "add-auto-load-safe-path $(realpath "$(tree gdb)/vmlinux-gdb.py")" -ex 'directory guest-driver' -ex 'set tcp connect-timeout 60' -ex "target remote 127.0.0.1:$port" \
    -ex "lx-symbols $modules" -ex 'break peerdma_chardev_ioctl' -ex continue -ex 'info args' -ex 'next' -ex 'info locals' -ex delete \
    -ex detach "$(tree gdb)/vmlinux"
has lines.gdb 'peerdma_chardev_ioctl (' 'cmd = ' 'struct peerdma_call call'
ends 0
exit $failed
