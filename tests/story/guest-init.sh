#!/bin/sh
# The machine's process 1, in place of systemd, which would take half a minute under emulation: network, names, and the startup
# script that the autoscaler gave the machine. What it says goes to the serial port.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
chmod 1777 /tmp
config=/sys/firmware/qemu_fw_cfg/by_name/opt
ip link set lo up
tries=0
while [ ! -e /sys/class/net/eth0 ] && [ $tries -lt 500 ]; do
	sleep 0.02
	tries=$((tries + 1))
done
# QEMU's user network: the machine is 10.0.2.15, and 10.0.2.2 stands for the loopback address of the host's network.
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
hostname "$(cat $config/kasm-hostname/raw)"
printf '127.0.0.1 localhost %s\n10.0.2.2 dc1.example.local\n' "$(hostname)" >/etc/hosts
echo "guest: up after $(cut -d' ' -f1 /proc/uptime) s"
if [ -e $config/kasm-startup/raw ]; then
	cp $config/kasm-startup/raw /run/startup
	sh /run/startup
	echo "guest: startup script ended with $? after $(cut -d' ' -f1 /proc/uptime) s"
	rm /run/startup
fi
while :; do
	sleep 3600
done
