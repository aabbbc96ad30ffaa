#!/bin/sh
# In the guest's tree before it boots: the stand-in pack and a configuration for it, and who runs the host's commands.
set -e
cd /opt/rig
install -d -o cabinsense -g cabinsense /var/lib/cabinsense/packs
cp -r pack /var/lib/cabinsense/packs/default
chown -R cabinsense: /var/lib/cabinsense/packs
install -m 0640 -g cabinsense config.toml /etc/cabinsense/config.toml
systemctl --quiet enable /opt/rig/inside/commands.service
