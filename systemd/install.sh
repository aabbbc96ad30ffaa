#!/usr/bin/env bash
# Install the agent as a service, or a newer version over it. Configuration, gallery, packs and journal stay as they are.
#
#     sudo systemd/install.sh [--with NAME]... [--extras LIST] [--wheel FILE] [--python PYTHON] [--system-packages]
#                             [--root FOLDER]
#
#     --with NAME        turn on systemd/drop-ins/NAME.conf: csi, gallery-key, jtop or network
#     --extras LIST      optional parts of the agent, such as openvino; on a Jetson orin,tensorrt,evaluate
#     --wheel FILE       install this wheel of the agent instead of this checkout
#     --python PYTHON    make the environment with this interpreter
#     --system-packages  let the environment see the system's Python packages; always so on a Jetson, for TensorRT
#     --root FOLDER      put everything below FOLDER, for a package or an image; makes no user and starts nothing
#
# Where pip looks for packages is pip's own affair: PIP_INDEX_URL, PIP_FIND_LINKS and the like are heeded.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root='' wheel='' python=python3 extras='' system_packages=''
drop_ins=()
jetpack=/etc/nv_tegra_release # on every Jetson, and nowhere else

fail() { printf 'error: %s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*"; }
put() { install -D --mode "$1" "$here/$2" "$root$3"; }

arguments() {
    if [ -e "$jetpack" ]; then extras=orin,tensorrt,evaluate system_packages=yes; fi
    while [ $# -gt 0 ]; do
        case $1 in
            --system-packages) system_packages=yes ;;
            --with | --extras | --wheel | --python | --root)
                [ $# -gt 1 ] || fail "$1 needs a value"
                case $1 in
                    --with) drop_ins+=("$2") ;;
                    --extras) extras=$2 ;;
                    --wheel) wheel=$(realpath "$2") ;;
                    --python) python=$2 ;;
                    --root) mkdir -p "$2"; root=$(realpath "$2") ;;
                esac
                shift
                ;;
            --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit ;;
            *) fail "$1 is no option; see $0 --help" ;;
        esac
        shift
    done
    for name in ${drop_ins+"${drop_ins[@]}"}; do
        [ -e "$here/drop-ins/$name.conf" ] || fail "--with $name: there is no drop-ins/$name.conf"
    done
    if [ -z "$root" ]; then
        [ "$(id -u)" = 0 ] || fail "this needs root, so put sudo before it; or name a folder with --root"
        command -v systemd-sysusers >/dev/null || fail "there is no systemd here; name a folder with --root"
    fi
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        fail "Cabinsense needs Python 3.10 or newer; name one with --python"
}

# A copy of the checkout: pip builds in place, and would leave root's files there and find those of earlier builds.
copy_checkout() {
    copy=$(mktemp --directory)
    trap 'rm -rf "$copy"' EXIT
    (cd "$here/.." && cp -r agent calibration engines trainer pyproject.toml README.md LICENSE NOTICE "$copy")
}

environment() {
    local venv=$root/opt/cabinsense/venv what=$wheel board_packages=()
    if [ ! "$wheel" ]; then
        copy_checkout
        what=$copy
    fi
    if [ -e "$jetpack" ] && "$python" -c 'import sys; sys.exit(sys.version_info >= (3, 11))'; then
        board_packages=('numpy<2') # JetPack 6, whose OpenCV was compiled for numpy 1
    fi
    if [ ! -x "$venv/bin/python" ]; then
        "$python" -m venv ${system_packages:+--system-site-packages} "$venv" ||
            fail "no environment could be made; on Debian and Ubuntu: apt install python3-venv"
    fi
    local pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
    # pycuda, on a Jetson, is compiled with CUDA's nvcc.
    PATH=$PATH:/usr/local/cuda/bin "${pip[@]}" install --upgrade "$what${extras:+[$extras]}" \
        "${board_packages[@]}"
    if [ -n "$wheel" ]; then # which pip leaves out where the same version is installed
        "${pip[@]}" install --force-reinstall --no-deps "$wheel"
    fi
    if [ -e "$jetpack" ]; then # pip brought OpenCV without GStreamer, for it does not know NVIDIA's
        "${pip[@]}" uninstall --yes opencv-python-headless
    fi
    if [ -n "$root" ]; then # scripts name the place that they were made in, and are used in another
        grep --recursive --files-with-matches --binary-files=without-match --fixed-strings "$root" \
            "$venv/bin" "$venv/pyvenv.cfg" | xargs --no-run-if-empty sed --in-place "s|$root||g"
    fi
}

files() {
    local lib=/usr/local/lib name
    put 0755 cabinsense.sh /usr/local/bin/cabinsense
    put 0644 cabinsense.service $lib/systemd/system/cabinsense.service
    put 0644 cabinsense.sysusers.conf $lib/sysusers.d/cabinsense.conf
    put 0644 cabinsense.tmpfiles.conf $lib/tmpfiles.d/cabinsense.conf
    put 0644 cabinsense.modules.conf $lib/modules-load.d/cabinsense.conf
    put 0644 70-cabinsense.rules $lib/udev/rules.d/70-cabinsense.rules
    put 0755 uninstall.sh /opt/cabinsense/uninstall.sh
    for name in ${drop_ins+"${drop_ins[@]}"}; do
        put 0644 "drop-ins/$name.conf" "/etc/systemd/system/cabinsense.service.d/$name.conf"
    done
    if [ ! -e "$root/etc/cabinsense/config.toml" ]; then
        put 0640 config.toml /etc/cabinsense/config.toml
    fi
}

# Users, folders and devices of the system that is running, or (in a chroot) of the one that will.
system() {
    local lib=/usr/local/lib
    systemd-sysusers $lib/sysusers.d/cabinsense.conf
    systemd-tmpfiles --create $lib/tmpfiles.d/cabinsense.conf
    # The service must be able to read it; beyond that a file that somebody has written is his.
    runuser --user cabinsense -- test -r /etc/cabinsense/config.toml || chgrp cabinsense /etc/cabinsense/config.toml
    [ "$upgrade" ] || systemctl --quiet enable cabinsense.service
    [ -d /run/systemd/system ] || return 0
    modprobe --quiet videodev || true # a kernel may have it built in, or no cameras at all
    udevadm control --reload
    udevadm trigger --subsystem-match=video4linux --subsystem-match=gpio
    systemctl daemon-reload
    systemctl try-restart cabinsense.service ||
        fail "the new version does not start; journalctl --unit cabinsense says why"
}

arguments "$@"
upgrade=''
[ ! -e "$root/usr/local/lib/systemd/system/cabinsense.service" ] || upgrade=yes
environment
files
[ -n "$root" ] || system
if [ "$upgrade" ] || [ -n "$root" ]; then
    say "Cabinsense is installed${root:+ in $root}."
else
    say 'Cabinsense is installed. What is left to do:'
    say '  sudo -u cabinsense cabinsense models fetch   # or copy a pack to /var/lib/cabinsense/packs/default'
    say '  sudoedit /etc/cabinsense/config.toml         # your camera'
    say '  sudo -u cabinsense cabinsense doctor'
    say '  sudo systemctl start cabinsense'
fi
