#!/usr/bin/env bash
# Take the service off the system. Configuration, gallery and packs stay, unless --purge is given.
#
#     sudo systemd/uninstall.sh [--purge] [--root FOLDER]
set -euo pipefail

root='' purge=''

while [ $# -gt 0 ]; do
    case $1 in
        --purge) purge=yes ;;
        --root) root=${2:?--root needs a value}; shift ;;
        *) printf 'error: %s is no option; see the head of %s\n' "$1" "$0" >&2; exit 1 ;;
    esac
    shift
done
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo 'error: this needs root, so put sudo before it' >&2
    exit 1
fi

if [ -z "$root" ]; then
    systemctl --quiet disable cabinsense.service 2>/dev/null || true
    [ ! -d /run/systemd/system ] || systemctl stop cabinsense.service 2>/dev/null || true
fi
lib=$root/usr/local/lib
rm -rf "$root/opt/cabinsense" "$root/usr/local/bin/cabinsense" "$lib/systemd/system/cabinsense.service" \
    "$lib"/{sysusers,tmpfiles,modules-load}.d/cabinsense.conf "$lib/udev/rules.d/70-cabinsense.rules"
if [ "$purge" ]; then
    rm -rf "$root"/{etc,var/lib}/cabinsense "$root/etc/systemd/system/cabinsense.service.d"
    [ "$root" ] || ! id cabinsense >/dev/null 2>&1 || userdel cabinsense
fi
if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    udevadm control --reload
fi
[ "$purge" ] || echo "Configuration and gallery are kept in $root/etc/cabinsense and $root/var/lib/cabinsense."
