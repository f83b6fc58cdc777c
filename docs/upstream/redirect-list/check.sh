#!/bin/sh
# The module is loaded when this runs: what it asked for must stand in the kernel log, and nothing else.
dmesg | grep -q 'redirect_list\|distance to' || { echo "the module asked nothing"; exit 1; }
dmesg | grep 'ACS redirect is set\|disable_acs_redir\|too many to list\|KASAN'
! dmesg | grep -q 'BUG: KASAN'
