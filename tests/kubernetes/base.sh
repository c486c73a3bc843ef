#!/usr/bin/env bash
# The base: the machine of the cluster. It runs as the first process of namespaces of its own (mounts, processes, network),
# so all of it ends with this process. Files outside of the scratch directory are written to a layer in memory, and the
# network has only a loopback interface.
#
# usage: base.sh ROOT WORK COMMAND...
set -euo pipefail

root=$1
work=$2
shift 2

mount --make-rprivate /
mkdir "$work/base"
mount -t tmpfs -o mode=0755 flocker-csi-e2e "$work/base"
mkdir "$work"/base/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$work/base/upper,workdir=$work/base/work" flocker-csi-e2e "$work/base/root"
cd "$work/base/root"
mkdir -p ".$root" ".$work" old
for directory in /dev /sys "$root" "$work"; do
    mount --rbind "$directory" ".$directory"
done
mount -t proc proc proc
mount -t tmpfs -o mode=0755 flocker-csi-e2e run
pivot_root . old
umount --lazy /old
rmdir /old
cd /
# As systemd leaves it: every mount propagates to the namespaces that receive mounts.
mount --make-rshared /
ip link set lo up

# Not replaced by the command: this shell is the first process here, and takes leave of the dead.
status=0
"$@" || status=$?
exit "$status"
