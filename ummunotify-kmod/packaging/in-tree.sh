#!/bin/sh
# Runs a command in a copy of another Debian, which is gone with the guest:
# in-tree.sh TREE SHARED COMMAND...  SHARED has the same path there as here.
set -e
tree="$1"
shared="$2"
shift 2
release=$(uname -r)

mkdir /run/tree
mount -t tmpfs tree /run/tree
cd /run/tree
mkdir changes work root
mount -t overlay -o "lowerdir=$tree,upperdir=changes,workdir=work" overlay root
for directory in /dev /proc /sys "$shared" "/lib/modules/$release"; do
	mkdir -p "root$directory"
	mount --rbind "$directory" "root$directory"
done
exec chroot root /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
