#!/bin/sh
# A long copy into the second peer device, which is pulled out meanwhile, while this waits for its child.
device=$(ls -d /sys/bus/pci/drivers/mistakes/0000:* | head -n 1)
echo into-peer >"$device/make" &
sleep 0.02
guest-agent unplug 00:05.0 || exit 3
wait
cat "$device/said"
