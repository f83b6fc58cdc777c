#!/bin/sh
# Reads the named file (copy or copy_early) of each I/OAT engine; fails unless there is one and all answer "ok".
failed=1
for device in /sys/bus/pci/drivers/engine_copy/0000:*; do
    [ -e "$device" ] || { echo "no I/OAT engine"; break; }
    answer=$(cat "$device/${1:-copy}")
    echo "${device##*/}: $answer"
    [ "$answer" = ok ] || exit 1
    failed=0
done
exit $failed
