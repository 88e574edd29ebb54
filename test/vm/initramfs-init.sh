#!/bin/busybox sh
# First program of the test machine: loads the disk drivers, mounts the disk, hands over to /sbin/init there.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules); do insmod "/lib/$module"; done
mkdir -p /disk
tries=0
until [ -b /dev/vda ] && mount -t ext4 -o noatime /dev/vda /disk; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || poweroff -f
    sleep 0.1
done
umount /proc /sys
mount -o move /dev /disk/dev
exec switch_root /disk /sbin/init
