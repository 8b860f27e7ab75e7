#!/bin/sh
# Builds the machine of `make story`: a stock Debian kernel and a root file system with xrdp and what a domain member needs,
# in the folder given. Needs root, and Debian or its like. An image that is there already and up to date is left alone; with
# `--check` before the folder, nothing is built, and the exit code says whether there is one.
set -eu
check=""
[ "$1" = --check ] && check=yes && shift
out="$1"
story=$(cd "$(dirname "$0")" && pwd)

stamp=$(cat "$story/image.sh" "$story/guest-init.sh" "$story/initrd-init.sh" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
	exit 0
fi
[ -z "$check" ] || exit 1
[ "$(dpkg --print-architecture 2>/dev/null)" = amd64 ] || { echo "story: its machine is built on Debian for amd64" >&2; exit 1; }
sudo=""
[ "$(id -u)" = 0 ] || sudo="sudo"

missing=""
for pair in qemu-system-x86_64=qemu-system-x86 debootstrap=debootstrap mke2fs=e2fsprogs busybox=busybox-static cpio=cpio; do
	command -v "${pair%%=*}" >/dev/null 2>&1 || [ -x "/usr/sbin/${pair%%=*}" ] || missing="$missing ${pair#*=}"
done
if [ -n "$missing" ]; then
	echo "story: installing$missing"
	$sudo apt-get update -qq
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >/dev/null
fi

work=$(mktemp -d)
trap '$sudo rm -rf "$work"' EXIT
mkdir -p "$out"

echo "story: the kernel"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
(cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$kernel" && dpkg-deb -x "$kernel"_*.deb kernel)
version=$(ls "$work/kernel/lib/modules")
modules="$work/kernel/lib/modules/$version/kernel"

echo "story: the initial file system"
mkdir -p "$work/initrd/bin" "$work/initrd/proc" "$work/initrd/sys" "$work/initrd/dev" "$work/initrd/mnt" "$work/initrd/modules"
cp "$(command -v busybox)" "$work/initrd/bin/busybox"
cp "$story/initrd-init.sh" "$work/initrd/init"
for module in drivers/virtio/virtio_ring drivers/virtio/virtio drivers/virtio/virtio_pci_legacy_dev \
	drivers/virtio/virtio_pci_modern_dev drivers/virtio/virtio_pci drivers/block/virtio_blk net/core/failover \
	drivers/net/net_failover drivers/net/virtio_net drivers/firmware/qemu_fw_cfg; do
	cp "$modules/$module.ko" "$work/initrd/modules/"
done
(cd "$work/initrd" && find . | cpio --quiet -o -H newc | gzip -9 >"$work/initrd.gz")

echo "story: the root file system, which takes some minutes"
packages=adcli,krb5-user,libpam-krb5,xrdp,tigervnc-standalone-server,iproute2,wget,openssl
$sudo debootstrap --variant=minbase --include="$packages" bookworm "$work/tree" >"$out/debootstrap.log" 2>&1 \
	|| { tail -n 20 "$out/debootstrap.log" >&2; exit 1; }
$sudo rm -rf "$work/tree/var/cache/apt" "$work/tree/var/lib/apt/lists" "$work/tree/usr/share/doc" "$work/tree/usr/share/man" \
	"$work/tree/usr/share/locale"
$sudo cp "$story/guest-init.sh" "$work/tree/guest-init"
$sudo mke2fs -q -t ext4 -d "$work/tree" "$work/root.img" 1200M
$sudo chown "$(id -u):$(id -g)" "$work/root.img"

cp "$work/kernel/boot/vmlinuz-$version" "$out/kernel"
mv "$work/initrd.gz" "$work/root.img" "$out/"
echo "$stamp" >"$out/stamp"
