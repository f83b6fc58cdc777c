#!/bin/sh
# make.sh NAME...: each in turn on the first peer device. How it went for the driver is not what is checked.
device=$(ls -d /sys/bus/pci/drivers/mistakes/0000:* | head -n 1)
for name in "$@"; do
    echo "$name" >"$device/make" || exit 3
    cat "$device/said"
done
