#!/bin/sh
# PID 1 of the test machine: a v2-only host with every controller; unpacks the project, runs the specs, powers off.
# Lines that begin with @@ are for the host.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755 tmpfs /run
chmod 1777 /tmp
# /tmp stays on the disk: before 6.3 tmpfs cannot be idmapped.
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
hostname berth-vm
ip link set lo up
# Processes in the root cgroup would keep it from having children with controllers, were it not the root.
mkdir -p /berth && tar -x -f /dev/vdb -C /berth
ln -s /opt/node_modules /berth/node_modules
for module in $(cat /berth/vm/modules); do modprobe "$module" || echo "no module $module"; done
cd /berth || exit 1
if [ -e vm/shell ]; then
    echo "Berth's test machine. The project is in /berth; leave with exit."
    setsid cttyhack /bin/sh
else
    # shellcheck disable=SC2046
    node node_modules/mocha/bin/mocha.js --no-config --no-package --timeout 120000 \
        --reporter test/vm/reporter.cjs $(cat vm/specs) </dev/null
    echo "@@ {\"exit\":$?}"
fi
sync
poweroff -f
