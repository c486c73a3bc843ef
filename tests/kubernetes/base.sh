#!/usr/bin/env bash
# The base: what the machine is to the cluster. Runs as the first process of namespaces of its own (mounts, processes,
# network), so that all of it ends with this process. Whatever is written outside of the scratch directory goes into a
# layer in memory, and the network has nothing but a loopback interface.
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
# As systemd leaves it: every mount is passed on to whoever asks for it.
mount --make-rshared /
ip link set lo up

# Not replaced by the command: this shell is the first process here, and takes leave of the dead.
status=0
"$@" || status=$?
exit "$status"
