#!/usr/bin/env bash
# Make the guest that the tests boot: Debian 12 with its own kernel, and Cabinsense installed by systemd/install.sh.
#
#     tests/vm/build.sh WHEEL FOLDER DISK        as root; needs Debian's apt
#
# What does not change with the agent's code is made once and kept in ${XDG_CACHE_HOME:-~/.cache}/cabinsense-vm: some
# minutes and 2 GB. The rest takes seconds: WHEEL, the agent's, is installed over what is there, FOLDER becomes /opt/rig
# (of which inside/set-up.sh is run), and DISK is written: a sparse file with the guest's root.
#
#     vmlinux, initrd  what QEMU boots
#     root             Debian, and the agent as it was when this was made, with the packages that it depends on
#     made-…           digests of what all this was made of
set -euo pipefail

wheel=$(realpath "$1")
folder=$(realpath "$2")
disk=$(realpath "$3")
checkout=$(cd "$(dirname "$0")/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/cabinsense-vm
root=$cache/root
python=${PYTHON:-python3}

packages=systemd,systemd-sysv,dbus,udev,kmod,procps,python3,python3-venv,python3-systemd,busybox-static
modules="ext4 virtio_pci virtio_blk virtio_console virtio_rng crc32c_generic vivid configfs gpio-sim"
extras=gpio

say() { printf 'guest [%3d s] %s\n' "$SECONDS" "$*" >&2; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Run a command whose output matters only when it fails.
quietly() {
    "$@" >"$cache/log" 2>&1 || { tail -n 30 "$cache/log" >&2; fail "$1 failed; all it said is in $cache/log"; }
}

main() {
    [ "$(id -u)" = 0 ] || fail "the guest is built as root"
    mkdir -p "$cache"
    exec 9>"$cache/lock"
    flock 9
    once system "$(declare -f debian kernel furnish initrd) $packages $modules $(cat "$checkout"/tests/vm/kernel.sh)" \
        host_tools remove_root debian kernel furnish initrd
    once agent "$(cat "$cache/made-system") $(declare -f install_in) $extras $(requirements)" \
        remove_agent packages_of_the_agent install_agent
    write_disk
}

# Run the steps that make NAME, unless it has been made of WHAT already.
once() {
    local name=$1 what step
    what=$(sha256sum <<<"$2")
    shift 2
    [ "$(cat "$cache/made-$name" 2>/dev/null)" != "$what" ] || return 0
    rm -f "$cache/made-$name"
    for step; do $step; done
    echo "$what" >"$cache/made-$name"
    say "$name is made"
}

# What the wheel depends on.
requirements() {
    "$python" - "$wheel" <<'END'
import sys, zipfile
wheel = zipfile.ZipFile(sys.argv[1])
(metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
print(*(line for line in wheel.read(metadata).decode().splitlines() if line.startswith("Requires-Dist")), sep="\n")
END
}

remove_root() { rm -rf --one-file-system "$root"; }

remove_agent() { rm -rf --one-file-system "$root/opt/cabinsense"; }

install_agent() { install_in "$root"; }

host_tools() {
    say "tools of the host"
    quietly apt-get update
    DEBIAN_FRONTEND=noninteractive quietly apt-get install --yes --no-install-recommends \
        qemu-system-x86 qemu-utils mmdebstrap e2fsprogs cpio xz-utils make gcc-12 libc6-dev binutils kmod
}

debian() {
    say "Debian, from the mirror that this host uses"
    local sources=/etc/apt/sources.list.d/debian.sources
    [ -s "$sources" ] || sources=/etc/apt/sources.list
    quietly mmdebstrap --variant=minbase --include="$packages" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$root" "$sources"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
}

kernel() {
    local image release version made module tree=$cache/kernel/tree
    image=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    version=$(apt-cache policy "$image" | sed -n 's/^ *Candidate: //p')
    release=${image#linux-image-}
    say "Linux $version with gpio-sim"
    made="$version $(sha256sum <"$checkout/tests/vm/kernel.sh")"
    if [ "$(cat "$cache/kernel/made-of" 2>/dev/null)" != "$made" ]; then
        rm -rf "$cache/kernel"
        quietly "$checkout/tests/vm/kernel.sh" "$cache/kernel" "$image" "$version"
        echo "$made" >"$cache/kernel/made-of"
    fi
    ln -sf kernel/vmlinux "$cache/vmlinux"
    # Of its 4,000 modules the guest has those that it needs, and those that they need.
    for module in $modules; do
        modprobe --dirname "$tree" --set-version "$release" --show-depends "$module" || fail "no module $module"
    done | sed -n "s|^insmod $tree/\([^ ]*\).*|\1|p" | sort -u >"$cache/modules"
    (cd "$tree" && xargs cp --parents --target-directory "$root" <"$cache/modules")
    cp "$tree/lib/modules/$release"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$release/"
    depmod --basedir "$root" "$release"
}

# Fetched for the guest's Python, whatever the host's is.
packages_of_the_agent() {
    say "packages that the agent depends on"
    rm -rf "$cache/wheels"
    quietly "$python" -m pip download --only-binary :all: --dest "$cache/wheels" --python-version 3.11 \
        --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 "${wheel}[$extras]"
    rm -f "$cache"/wheels/cabinsense-*
}

# Install the agent in a tree, as on a board that has no network: with packages that were fetched before.
install_in() {
    local tree=$1
    say "systemd/install.sh"
    mkdir -p "$tree/mnt/wheels" "$tree/mnt/systemd"
    cp "$cache/wheels"/*.whl "$wheel" "$tree/mnt/wheels/"
    cp -r "$checkout/systemd/." "$tree/mnt/systemd/"
    # With /proc, which systemd-tmpfiles looks into; unshare takes it away again.
    quietly unshare --mount --pid --fork --mount-proc="$tree/proc" chroot "$tree" \
        env PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/wheels \
        /mnt/systemd/install.sh --system-packages --extras "$extras" --wheel "/mnt/wheels/${wheel##*/}"
    rm -rf "$tree/mnt/wheels" "$tree/mnt/systemd"
}

# What makes a tree a machine, and its boot quick: each unit that nobody needs is a second or more under emulation.
furnish() {
    echo 00000000000000000000cab175e75e00 >"$root/etc/machine-id" # without one every boot is a first boot
    echo guest >"$root/etc/hostname"
    echo '/dev/vda / ext4 defaults 0 0' >"$root/etc/fstab"
    echo 'options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0' >"$root/etc/modprobe.d/vivid.conf"
    echo vivid >"$root/etc/modules-load.d/vivid.conf"
    rm -f "$root/etc/resolv.conf"
    mkdir -p "$root/var/log/journal" # so that the journal outlives a boot
    local system="systemctl --quiet --root=$root"
    $system set-default multi-user.target
    $system mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
        fstrim.timer getty@tty1.service serial-getty@ttyS0.service systemd-logind.service systemd-networkd.service \
        systemd-networkd.socket systemd-binfmt.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
        dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount
}

# Debian has ext4 and virtio as modules: they are loaded before the root is there.
initrd() {
    say "initial file system"
    local early=$cache/early release module
    release=$(ls "$root/lib/modules")
    rm -rf "$early"
    mkdir -p "$early"/{bin,dev,modules,root}
    cp "$root/bin/busybox" "$early/bin/"
    {
        echo '#!/bin/busybox sh'
        echo '/bin/busybox mount -t devtmpfs devtmpfs /dev'
        for module in virtio_pci virtio_blk crc32c_generic ext4; do
            modprobe --dirname "$root" --set-version "$release" --show-depends "$module"
        done | awk '!seen[$2]++ { print $2 }' | while read -r module; do
            cp "$module" "$early/modules/"
            echo "/bin/busybox insmod /modules/${module##*/}"
        done
        echo 'until [ -b /dev/vda ]; do /bin/busybox sleep 0.05; done'
        echo '/bin/busybox mount -t ext4 /dev/vda /root'
        echo '/bin/busybox mount --move /dev /root/dev'
        echo 'exec /bin/busybox switch_root /root /sbin/init'
    } >"$early/init"
    chmod +x "$early/init"
    (cd "$early" && find . | cpio --create --format newc --quiet) >"$cache/initrd"
    rm -rf "$early"
}

# The tree with the agent of today and FOLDER in it; the tree itself stays as it is.
write_disk() {
    mkdir -p "$cache"/{above,work,today}
    # In a mount namespace of its own, so that nothing stays mounted whatever happens.
    export -f install_in quietly fail say
    export cache checkout wheel extras folder
    # shellcheck disable=SC2016
    unshare --mount bash -euo pipefail -c '
        mount -t tmpfs above "$cache/above"
        mkdir "$cache/above/"{files,work}
        mount -t overlay -o "lowerdir=$1,upperdir=$cache/above/files,workdir=$cache/above/work" guest "$cache/today"
        install_in "$cache/today"
        cp -r "$folder/." "$cache/today/opt/rig"
        chroot "$cache/today" sh /opt/rig/inside/set-up.sh
        say "disk"
        truncate --size 3G "$2"
        quietly mke2fs -q -t ext4 -E lazy_itable_init=1 -m 0 -d "$cache/today" "$2"
    ' - "$root" "$disk"
}

main
