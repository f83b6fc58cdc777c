#!/bin/sh
# In a guest: a module is fetched, loaded, built again on the host, and loaded again.
set -eu
fail() { echo "reload: $*"; exit 1; }
guest-agent get
guest-agent get share/first_finding.c /tmp/
grep -q 'PATTERN.*0x5a' /tmp/first_finding.c || fail "not the file"
guest-agent get share/outside && fail "fetched what is not shared"
guest-agent get share/../out && fail "fetched what is not shared"
guest-agent get share/none && fail "fetched what there is not"
guest-agent get nothing && fail "fetched what there is not"
guest-agent get share/first_finding.c /proc/none/x && fail "wrote where nothing can be written"
guest-agent get share /tmp/all
[ -s /tmp/all/first_finding.ko ] && [ ! -e /tmp/all/outside ] || fail "not the folder"
# Several at the same time.
for i in 1 2 3 4; do guest-agent get share "/tmp/at-once-$i" >/dev/null & done
wait
for i in 1 2 3 4; do
    cmp /tmp/all/first_finding.ko "/tmp/at-once-$i/first_finding.ko" || fail "not four of them"
done
guest-agent reload share && fail "loaded a folder"
guest-agent reload share/first_finding.c && fail "loaded what is not a module"
guest-agent reload share/first_finding.ko
sum=$(md5sum </lib/modules/first_finding.ko)
# What holds a module is named, and it stays loaded.
guest-agent put /lib/modules/peerdma.ko
sleep 1000 </dev/peerdma0 &
holder=$!
held=$(guest-agent reload results/peerdma.ko 2>&1) && fail "unloaded what is in use"
echo "$held"
[ -e /dev/peerdma0 ] || fail "peerdma is gone"
kill "$holder"
wait "$holder" || true
guest-agent reload results/peerdma.ko
guest-agent put /dev/null loaded
until guest-agent get share/again /tmp/; do sleep 1; done
guest-agent reload share/first_finding.ko
[ "$sum" != "$(md5sum </lib/modules/first_finding.ko)" ] || fail "the old one"
guest-agent put /lib/modules/first_finding.ko
guest-agent put /tmp && fail "put a folder"
echo 'reload: all done'
