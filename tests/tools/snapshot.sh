#!/usr/bin/env bash
# Prints everything that a run of the plugin could leave behind on this machine, one sorted line for each object, so that
# diff can compare a snapshot from before with one from after.
#
# usage: snapshot.sh [DIR [PROCESS_GROUP]]
set -euo pipefail

directory=${1:-}
group=${2:-}

loop_devices() {
    local backing
    for backing in /sys/block/loop*/loop/backing_file; do
        [[ -r $backing ]] || continue
        printf 'loop /dev/%s %s\n' "$(cut -d/ -f4 <<<"$backing")" "$(cat "$backing")"
    done
}

# Root, mount point, options, propagation, type and source; the ids say nothing about the mounted file system.
mounts() { awk '{ $1 = $2 = ""; gsub(/(shared|master|propagate_from):[0-9]+/, "peer"); print "mount" $0 }' /proc/self/mountinfo; }

devices() {
    [[ ! -e /dev/flocker-csi ]] || find /dev/flocker-csi -printf 'device %p %y\n'
}

files() {
    [[ $directory == "" ]] || find "$directory" -mindepth 1 -printf 'file %p %y\n'
}

processes() {
    [[ $group == "" ]] || ps -e -o pgid=,pid=,args= | awk -v group="$group" '$1 == group { $1 = ""; print "process" $0 }'
}

{
    loop_devices
    mounts
    devices
    files
    processes
} | LC_ALL=C sort
