#!/usr/bin/env bash
# A node: a machine as far as its mounts and processes go. What is mounted in the base reaches it, what is mounted in it
# stays there, and when this process ends, everything on the node has ended: that is a power cut.
#
# usage: node.sh DIRECTORY FLOCKER_ROOT
# DIRECTORY has what is the node's own; FLOCKER_ROOT is where the base mounts the datasets of the node.
set -euo pipefail

directory=$1
flocker_root=$2

# Pods on the network of their node have its host name, which distinguishes the sidecars' leaders.
hostname "${directory##*/}"
mount --make-rshared /
mount -t proc proc /proc
# Under the same paths on every node, as a DaemonSet has one set of them.
for path in /etc/flocker /var/lib/kubelet /var/lib/flocker-csi /var/lib/containerd /run/containerd /run/runc /var/log/pods; do
    mkdir -p "$directory$path"
    mount --bind "$directory$path" "$path"
done
mount --rbind "$flocker_root" /flocker
echo $BASHPID >"$directory/ready"

# Reaps zombies until it gets SIGTERM.
trap 'exit 0' TERM
while :; do
    sleep infinity &
    wait $! || true
done
