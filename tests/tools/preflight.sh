#!/usr/bin/env bash
# Checks before the first test that this machine supports what the tests need: root, a mount namespace of their own, and
# an ext4 on a loop device.
#
# usage: preflight.sh
. "$(dirname -- "$0")/lib.sh"

[[ $(id -u) == 0 ]] || die "the tests attach loop devices and mount file systems, which needs root: run them with sudo"
[[ -e /dev/loop-control ]] ||
    die "/dev/loop-control is missing: load the kernel module (modprobe loop), or run the container with the device"
unshare --mount --propagation private -- true ||
    die "no mount namespace can be created; a container needs CAP_SYS_ADMIN (--privileged)"
in_own_namespace "$@"
image=$WORK/image
mkdir "$WORK/mounted"
truncate --size 64M "$image"
mkfs.ext4 -q "$image"
device=$(losetup --find --show "$image") || die "no loop device can be attached"
mount -t ext4 "$device" "$WORK/mounted" || { losetup --detach "$device"; die "the kernel does not mount ext4"; }
umount "$WORK/mounted"
losetup --detach "$device"
wait_until 10 eval "! attached_loop_devices | grep -qF '$image'" || die "$device cannot be detached"
say "root, mount namespaces, loop devices and ext4 are available (Linux $(uname -r))"
