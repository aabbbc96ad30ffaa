#!/bin/sh
# Inside the guest: a chip with two lines, made of gpio-sim. Line 0 is the record button, line 1 its lamp.
set -e
[ ! -d /sys/kernel/config/gpio-sim/button ] || exit 0
modprobe gpio-sim
mkdir -p /sys/kernel/config/gpio-sim/button/bank/line0 /sys/kernel/config/gpio-sim/button/bank/line1
cd /sys/kernel/config/gpio-sim/button
echo 2 >bank/num_lines
echo record >bank/line0/name
echo record-lamp >bank/line1/name
echo 1 >live
udevadm settle
