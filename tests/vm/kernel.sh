#!/usr/bin/env bash
# Debian's kernel for the guest, and gpio-sim.ko for it, which Debian does not build.
#
#     tests/vm/kernel.sh FOLDER PACKAGE VERSION        such as linux-image-6.1.0-56-amd64 and 6.1.192-2
#
# Leaves FOLDER/vmlinux and FOLDER/tree/lib/modules. Packages are unpacked there and not installed.
set -euo pipefail

folder=$1 package=$2 version=$3
release=${package#linux-image-}
series=$(cut -d. -f1,2 <<<"$version")
tree=$folder/tree headers=$folder/headers module=$folder/gpio-sim

mkdir -p "$tree" "$headers" "$module"
cd "$folder"
apt-get download "$package=$version" "linux-source-$series=$version" "linux-kbuild-$series=$version" \
    "linux-headers-$release=$version" "linux-headers-${release%-*}-common=$version" "linux-compiler-gcc-12-x86=$version"

dpkg-deb --extract "$package"_*.deb "$tree"
for part in linux-kbuild linux-headers linux-compiler; do
    for file in "$part"*.deb; do dpkg-deb --extract "$file" "$headers"; done
done

source=linux-source-$series
dpkg-deb --fsys-tarfile "$source"_*.deb | tar --extract --to-stdout "./usr/src/$source.tar.xz" | xz --decompress |
    tar --extract --directory "$module" --strip-components 1 \
        "$source/drivers/gpio/gpio-sim.c" "$source/drivers/gpio/gpiolib.h" "$source/kernel/irq/irq_sim.c" \
        "$source/scripts/extract-vmlinux"

# Unpacked here: under emulation that would take seconds at each boot.
bash "$module/scripts/extract-vmlinux" "$tree/boot/vmlinuz-$release" >vmlinux

# The interrupts that gpio-sim raises are simulated by irq_sim.c, which Debian leaves out too: both become one module.
# Inside a module irq_to_desc() cannot be called; generic_handle_irq() takes the number instead and does the same.
cp "$module/drivers/gpio/gpio-sim.c" "$module/lines.c"
cp "$module/drivers/gpio/gpiolib.h" "$module/"
sed 's/handle_simple_irq(irq_to_desc(\([a-z]*\)))/generic_handle_irq(\1)/' "$module/kernel/irq/irq_sim.c" \
    >"$module/interrupts.c"
printf '%s\n' 'obj-m := gpio-sim.o' 'gpio-sim-y := lines.o interrupts.o' >"$module/Makefile"
build=$headers/usr/src/linux-headers-$release
sed -i "s|/usr/src/|$headers/usr/src/|g" "$build/Makefile"
make --directory "$build" M="$module" modules
strip --strip-debug "$module/gpio-sim.ko"
install -D --mode 0644 "$module/gpio-sim.ko" "$tree/lib/modules/$release/extra/gpio-sim.ko"

depmod --basedir "$tree" "$release"
rm -rf ./*.deb "$headers" "$module"
