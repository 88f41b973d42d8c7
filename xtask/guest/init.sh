#!/bin/busybox sh
# The guest's first program, in the initramfs: makes a root file system of the
# host's own, or of another that is shared, which the guest may write to without the host noticing, mounts
# all that a running system has, and goes on there with run.sh. What it prints
# goes to the console's log.
#
# It does as much as it can, since busybox, in memory, starts several times
# faster than a program that comes from the host.

set -e
PATH=/bin
/bin/busybox --install -s /bin
. /settings

mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys

for module in /modules/*.ko; do
	# None, if the kernel has all built in.
	[ ! -e "$module" ] || insmod "$module"
done

share="trans=virtio,version=9p2000.L,msize=512000,cache=loose"
mount -t 9p -o "ro,$share" root /lower
mount -t tmpfs -o mode=755 upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
if [ -n "$SOURCES" ]; then
	mkdir -p "/root$SOURCES"
	mount -t 9p -o "ro,$share" sources "/root$SOURCES"
fi
mkdir -p "/root$TARGET"
mount -t 9p -o "$share" target "/root$TARGET"

ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t hugetlbfs hugetlbfs /dev/hugepages
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
echo 16 >/proc/sys/vm/nr_hugepages
# A scan of the mappings raises events that tests do not expect. Real-time
# kernels have none.
balancing=/proc/sys/kernel/numa_balancing
[ ! -e "$balancing" ] || echo 0 >"$balancing"
echo 60 >/proc/sys/kernel/hung_task_timeout_secs
ip link set lo up
hostname "$NAME"

for directory in dev proc sys; do
	mount -o move "/$directory" "/root/$directory"
done
mount -t tmpfs -o mode=755 run /root/run
# So that modprobe works for every module of this kernel.
mkdir -p "/root/lib/modules/$RELEASE"
mount -o bind "/root$MODULES" "/root/lib/modules/$RELEASE"

exec switch_root /root /bin/sh "$RUN/run.sh" "$RUN"
