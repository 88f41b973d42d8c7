#!/bin/sh
# Installs, loads, unloads and removes the package, in a guest: check.sh HEADERS
# DEB...  The last DEB is the package itself.
set -ex
headers="$1"
shift
release=$(uname -r)

# What is installed must not reach the machine that lends its files; and depmod
# would read all of the kernel's modules, which takes a guest minutes.
mkdir /run/modules
cp "/lib/modules/$release"/modules.builtin* "/lib/modules/$release/modules.order" /run/modules
# Newer ones of dkms make no index where there was none.
touch /run/modules/modules.dep
mount -o bind /run/modules "/lib/modules/$release"
ln -s "$headers" "/lib/modules/$release/build"

export DEBIAN_FRONTEND=noninteractive
dpkg -i "$@"
dkms status ummunotify | grep -q "$release.*: installed"
test -e /usr/include/ummunotify/linux/ummunotify.h

udevd=/lib/systemd/systemd-udevd
if [ -x $udevd ]; then
	$udevd --daemon
fi
modprobe ummunotify
test -c /dev/ummunotify
if [ -x $udevd ]; then
	udevadm settle
	test "$(stat -c %a /dev/ummunotify)" = 444
else
	echo "no udev here: the device's mode is not checked"
fi
rmmod ummunotify
test ! -e /dev/ummunotify

dpkg -r ummunotify-dkms
test -z "$(dkms status ummunotify)"
test -z "$(find "/lib/modules/$release" -name 'ummunotify.ko*')"
test ! -e "/usr/src/ummunotify-$(dpkg-deb -f "$(eval echo "\${$#}")" Version)"
