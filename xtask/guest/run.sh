#!/bin/sh
# The guest's second program, on the host's root file system: the devices, then
# the command, then its status. What is printed before the command runs goes to
# the console's log.

set -e
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN="$1"
. "$RUN/settings"

ulimit -l unlimited
# For the selftests' time limits.
export HARNESS_SLOWDOWN="$SLOWDOWN"
if [ "$SLOWDOWN" != 1 ]; then
	# Slow is not stuck; on a busy host without KVM, neither is this.
	echo 60 >/proc/sys/kernel/watchdog_thresh
	echo 300 >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout
	# Expedited grace periods have a limit of 21 s that cannot be raised.
	echo 1 >/sys/kernel/rcu_normal
	echo 600 >/proc/sys/kernel/hung_task_timeout_secs
fi
if [ "$RDMA" = 1 ]; then
	# A page of RoCE payload with its headers fits into this MTU.
	modprobe -a rdma_rxe ib_uverbs rdma_ucm
	case $NAME in
	node?)
		modprobe virtio_net
		ip link set "$(ls /sys/bus/virtio/drivers/virtio_net/virtio*/net)" name roce0
		printf '192.0.2.%s\n' '1 node1' '2 node2' >>/etc/hosts
		ip address add "192.0.2.${NAME#node}/24" dev roce0
		;;
	*)
		modprobe dummy
		ip link add roce0 type dummy
		ip link set roce0 address 02:00:00:00:00:01
		ip address add 192.0.2.1/24 dev roce0
		;;
	esac
	ip link set roce0 mtu 4200 up
	rdma link add rxe0 type rxe netdev roce0
fi
for module in $INSERT; do
	insmod "$module"
done

# From here on the log has everything that the kernel says.
echo 8 >/proc/sys/kernel/printk

# A port can be opened only once, so the command must not have it as its
# /dev/stdout, which it may open again.
mkfifo /run/stdout /run/stderr
for port in /sys/class/virtio-ports/*; do
	name=$(cat "$port/name")
	cat "/run/$name" >"/dev/${port##*/}" &
	eval "$name=\$!"
done

echo "regcache: running the command"
set +e
sh "$RUN/command.sh" </dev/null >/run/stdout 2>/run/stderr
status=$?
echo "regcache: the command ended with status $status"

# All output must have left before the guest goes; a process that the command
# left behind may hold it open for ever, so not longer than five seconds.
(sleep 5; kill "$stdout" "$stderr") 2>/dev/null &
wait "$stdout" "$stderr"
echo "$status" >"$RUN/status"
sync
# QEMU was told not to reboot, so this ends it.
echo b >/proc/sysrq-trigger
