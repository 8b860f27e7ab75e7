#!/bin/busybox sh
# The first program of the story's machine: loads the drivers, mounts the disk, and hands over to it.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
# virtio_ring is needed by virtio, and so on down the list.
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk failover net_failover \
	virtio_net qemu_fw_cfg; do
	insmod "/modules/$module.ko"
done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 500 ]; do
	usleep 20000
	tries=$((tries + 1))
done
mount -t ext4 -o rw,noatime /dev/vda /mnt || exec sh
for folder in proc sys dev; do
	mount --move "/$folder" "/mnt/$folder"
done
exec switch_root /mnt /guest-init
