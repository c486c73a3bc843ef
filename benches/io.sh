#!/usr/bin/env bash
# Measures how fast a volume of the embedded Flocker is, with fio: the volume, a loop device that was attached and mounted by
# hand, and the file system that has both, in turns on one disk. Fails where the volume is slower than the loop device allows.
#
# usage: io.sh [ROUNDS [SECONDS]]
# shellcheck source=tests/tools/lib.sh
. "$(dirname -- "$0")/../tests/tools/lib.sh"

readonly ROUNDS=${1:-10} LENGTH=${2:-3}
# What the volume has to reach of the loop device, in hundredths.
readonly LIMIT=95
readonly SIZE=1073741824 WAYS=(host volume loop)
# Each line: its name, and the arguments of fio.
readonly WORKLOADS=(
    "4 KiB random writes, each with fsync|--rw=randwrite --bs=4k --fsync=1 --ioengine=psync"
    "4 KiB random reads and writes past the cache, 16 at once|--rw=randrw --bs=4k --direct=1 --iodepth=16 --ioengine=libaio"
    "sequential writes of 1 MiB|--rw=write --bs=1m --ioengine=psync --end_fsync=1"
)

call() { "$TOOLS/bin/grpcurl" -plaintext -max-time 55 -unix -d "$2" "$WORK/csi.sock" "csi.v1.$1"; }
field() { sed -n "s/.*\"$1\": \"\\(.*\\)\".*/\\1/p"; }

# fio DIRECTORY ARGUMENT...: operations per second, reads and writes together.
fio() {
    local directory=$1
    shift
    env LD_LIBRARY_PATH="$(unpacked_libraries "$TOOLS/fio-files")" "$TOOLS/bin/fio" --name=io --directory="$directory" \
        --filename=file --size=256m --time_based --runtime="$LENGTH" --output-format=json "$@" >"$WORK/log/fio" 2>&1
    jq '.jobs[0] | .read.iops + .write.iops' "$WORK/log/fio"
}

median() { sort --general-numeric-sort | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

in_own_namespace "$@"
need_program
need_tool grpcurl
need_tool fio
use_disk
mkdir "$WORK/staging" "$WORK/volume" "$WORK/loop" "$WORK"/disk/{data,host}
ln -s disk/data "$WORK"

declare -rA DIRECTORIES=([host]=$WORK/disk/host [volume]=$WORK/volume [loop]=$WORK/loop)
readonly CAPABILITY='{"mount": {}, "access_mode": {"mode": "SINGLE_NODE_WRITER"}}'
start_standalone "unix://$WORK/csi.sock" "unix://$WORK/csi.sock"
node=$(call Node/NodeGetInfo '{}' | field nodeId)
id=$(call Controller/CreateVolume "{\"name\": \"io\", \"capacity_range\": {\"required_bytes\": $SIZE},
    \"volume_capabilities\": [$CAPABILITY]}" | field volumeId)
readonly VOLUME="\"volume_id\": \"$id\"" STAGING="\"staging_target_path\": \"$WORK/staging\""
call Controller/ControllerPublishVolume "{$VOLUME, \"node_id\": \"$node\", \"volume_capability\": $CAPABILITY}" >/dev/null
call Node/NodeStageVolume "{$VOLUME, $STAGING, \"volume_capability\": $CAPABILITY}" >/dev/null
call Node/NodePublishVolume "{$VOLUME, $STAGING, \"target_path\": \"$WORK/volume\", \"volume_capability\": $CAPABILITY}" >/dev/null

# As the embedded Flocker makes it.
fallocate --length "$SIZE" "$WORK/disk/file"
ours=$(attached_loop_devices | awk -v file="$WORK/disk/data/volumes/$id" '$2 == file { print $1 }')
device=$(losetup --find --show --direct-io=on --sector-size "$(blockdev --getss "$ours")" "$WORK/disk/file")
mkfs.ext4 -q -F -b 4096 -E nodiscard,lazy_itable_init=0 "$device"
mount "$device" "$WORK/loop"
say "$(cat "/sys/block/${ours#/dev/}/loop/dio" "/sys/block/${device#/dev/}/loop/dio" | paste --serial --delimiters ' ') (1 1: the devices of the volume and of the loop use direct I/O)"

for way in "${WAYS[@]}"; do fio "${DIRECTORIES[$way]}" --rw=write --bs=1m --ioengine=psync --end_fsync=1 >/dev/null; done
failed=0
for workload in "${WORKLOADS[@]}"; do
    IFS='|' read -r name arguments <<<"$workload"
    read -r -a arguments <<<"$arguments"
    for ((round = 0; round < ROUNDS; round++)); do
        # Each of them is first, second and last equally often.
        for ((turn = 0; turn < ${#WAYS[@]}; turn++)); do
            way=${WAYS[(round + turn) % ${#WAYS[@]}]}
            fio "${DIRECTORIES[$way]}" "${arguments[@]}" >>"$WORK/$round.$way"
        done
    done
    declare -A medians=()
    for way in "${WAYS[@]}"; do
        medians[$way]=$(cat "$WORK"/*."$way" | median)
        rm "$WORK"/*."$way"
    done
    ratio=$(awk -v a="${medians[volume]}" -v b="${medians[loop]}" 'BEGIN { printf "%.0f", 100 * a / b }')
    verdict=within
    if ((ratio < LIMIT)); then
        verdict=below
        failed=1
    fi
    printf '| %s | %.0f | %.0f | %.0f | %s.%02d | %s |\n' "$name" "${medians[host]}" "${medians[loop]}" "${medians[volume]}" \
        $((ratio / 100)) $((ratio % 100)) "$verdict"
done

umount "$WORK/loop"
losetup --detach "$device"
call Node/NodeUnpublishVolume "{$VOLUME, \"target_path\": \"$WORK/volume\"}" >/dev/null
call Node/NodeUnstageVolume "{$VOLUME, $STAGING}" >/dev/null
call Controller/ControllerUnpublishVolume "{$VOLUME, \"node_id\": \"$node\"}" >/dev/null
call Controller/DeleteVolume "{$VOLUME}" >/dev/null
stop standalone
((failed == 0)) || die "the volume is slower than 0.$LIMIT of the loop device"
