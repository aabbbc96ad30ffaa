#!/bin/sh
# Inside the guest: a chip with one line, made of gpio-sim. Its "pull" is the button: pull-up, pull-down.
set -e
[ -d /sys/kernel/config/gpio-sim/button ] && exit
modprobe gpio-sim
mkdir -p /sys/kernel/config/gpio-sim/button/bank/line0
cd /sys/kernel/config/gpio-sim/button
echo 8 >bank/num_lines
echo record >bank/line0/name
echo 1 >live
udevadm settle
