# Functions shared by the scripts in this directory: paths, processes that are always stopped, waiting with a deadline,
# and a mount namespace with a scratch directory that leaves nothing behind. To be sourced.
# shellcheck shell=bash

set -euo pipefail

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
# The directory in which `make tools` installs programs for the tests.
TOOLS=${TOOLS:-$ROOT/target/tools}
# The program under test: the one build that `make demo` and `make test` share.
FLOCKER_CSI=${FLOCKER_CSI:-${CARGO_TARGET_DIR:-$ROOT/target}/debug/flocker-csi}

# The tests must not use the settings of the user who runs them.
unset "${!FLOCKER_CSI_@}" CSI_ENDPOINT

# Scratch directory of this run, set by `in_own_namespace`.
WORK=
# The same on a disk, set by `use_disk`.
DISK=
# Processes started by `start`, by name.
declare -A PIDS=()

say() { printf '%s\n' "$@"; }

die() {
    printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
    exit 1
}

# need FILE HOW: stops unless FILE can be executed; HOW says how to get it.
need() {
    [[ -x $1 ]] || die "$1 is missing; $2"
}

need_program() { need "$FLOCKER_CSI" "build it with: make build"; }
need_tool() { need "$TOOLS/bin/$1" "install it with: make tools"; }

# in_own_namespace "$@": runs the calling script again in a mount namespace of its own, in which every mount is shared
# as on a host under systemd, and sets $WORK. That is a tmpfs: it takes only the memory in use, allows device nodes
# wherever TMPDIR is, and is removed with the namespace.
in_own_namespace() {
    if [[ ${OUTER_NAMESPACE:-} == "" || $OUTER_NAMESPACE == "$(readlink /proc/self/ns/mnt)" ]]; then
        [[ $(id -u) == 0 ]] || die "mounting needs root: run it with sudo"
        OUTER_NAMESPACE=$(readlink /proc/self/ns/mnt)
        export OUTER_NAMESPACE
        exec unshare --mount --propagation private -- "$BASH" "$0" "$@"
    fi
    mount --make-rshared /
    # The host does not see this namespace, and what uses the volumes is in it.
    export FLOCKER_CSI_ACCEPT_UNVERIFIED_PROPAGATION=true
    WORK=$(mktemp --directory --suffix=.flocker-csi)
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    mount -t tmpfs -o mode=0700,size=256g flocker-csi-test "$WORK"
    mkdir "$WORK/log"
}

# use_disk: makes $WORK/disk a directory on the file system of TMPDIR, for what must not be in memory.
use_disk() {
    DISK=$(mktemp --directory --suffix=.flocker-csi)
    mkdir "$WORK/disk"
    mount --bind "$DISK" "$WORK/disk"
    # Shared with others, but not with the directory itself: what is mounted on it is mounted once.
    mount --make-private "$WORK/disk"
    mount --make-shared "$WORK/disk"
}

clean_up() {
    local status=$? name log
    # The clean-up completes even if a step fails or the output is closed.
    set +e
    trap '' INT TERM PIPE
    for name in "${!PIDS[@]}"; do
        kill -TERM "${PIDS[$name]}" 2>/dev/null
        if ! wait_until 15 ended "$name"; then
            say "$name did not stop when asked to: killed"
            kill -KILL "${PIDS[$name]}" 2>/dev/null
            status=1
        fi
        wait "${PIDS[$name]}" 2>/dev/null
    done
    if [[ $status != 0 ]]; then
        for log in "$WORK"/log/*; do
            [[ -s $log ]] || continue
            say "--- end of $(basename -- "$log") ---"
            tail -n 40 -- "$log"
        done
    fi
    leave_nothing || status=1
    umount --recursive --lazy "$WORK"
    [[ $DISK == "" ]] || rm -rf --one-file-system -- "$DISK"
    rmdir -- "$WORK"
    exit "$status"
}

# Loop devices outlive mounts, namespaces and processes, so a remaining one is a failure, and is detached.
leave_nothing() {
    local mounts device backing clean=0
    mounts=$(mounts_below "$WORK" | grep --invert-match --line-regexp "$WORK/disk" || true)
    if [[ -n $mounts ]]; then
        say "mounts left behind:" "$mounts"
        # The last one made is on top.
        tac <<<"$mounts" | while read -r mount; do umount --lazy -- "$mount"; done
        clean=1
    fi
    while read -r device backing; do
        [[ $backing == "$WORK"/* ]] || continue
        say "loop device left behind: $device of $backing"
        losetup --detach "$device"
        clean=1
    done < <(attached_loop_devices)
    return "$clean"
}

mounts_below() { awk -v under="$1/" 'index($5, under) == 1 { print $5 }' /proc/self/mountinfo; }

attached_loop_devices() {
    local backing
    for backing in /sys/block/loop*/loop/backing_file; do
        [[ -r $backing ]] || continue
        printf '/dev/%s %s\n' "$(cut -d/ -f4 <<<"$backing")" "$(cat "$backing")"
    done
}

# start NAME COMMAND...: runs COMMAND in the background; its output goes to a log that is shown if the script fails. The
# process gets SIGTERM when the script ends in any way.
start() {
    local name=$1
    shift
    setpriv --pdeathsig TERM -- "$@" >"$WORK/log/$name" 2>&1 </dev/null &
    PIDS[$name]=$!
}

# stop NAME: stops the process with SIGTERM, and fails unless it ends in time with exit code 0.
stop() {
    local name=$1 code=0
    kill -TERM "${PIDS[$name]}" 2>/dev/null || true
    wait_until 20 ended "$name" || die "$name did not stop within 20 s of SIGTERM"
    wait "${PIDS[$name]}" || code=$?
    unset "PIDS[$name]"
    [[ $code == 0 ]] || die "$name stopped with exit code $code, not 0"
}

# A process that has ended but was not waited for is a zombie.
ended() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/${PIDS[$1]}/status" 2>/dev/null) || return 0
    [[ $state == "" || $state == Z ]]
}

# wait_until SECONDS COMMAND...: repeats COMMAND until it succeeds; fails past the deadline.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# wait_for NAME WHAT COMMAND...: waits until COMMAND succeeds for the process NAME; stops the script when that process
# ends before, or when it takes too long.
wait_for() {
    local name=$1 what=$2
    shift 2
    wait_until 30 ended_or "$name" "$@" || die "$name: waited 30 s in vain for: $what"
    ! ended "$name" || die "$name ended before this: $what"
}

ended_or() {
    local name=$1
    shift
    "$@" || ended "$name"
}

# probe ADDRESS: one Identity.Probe, ADDRESS being unix:///abs or tcp://HOST:PORT.
probe() {
    case $1 in
    unix://*) "$TOOLS/bin/grpcurl" -plaintext -max-time 2 -unix "${1#unix://}" csi.v1.Identity/Probe ;;
    tcp://*) "$TOOLS/bin/grpcurl" -plaintext -max-time 2 "${1#tcp://}" csi.v1.Identity/Probe ;;
    *) die "cannot probe $1" ;;
    esac
}

# start_standalone ENDPOINT ADDRESS [FLAG...]: the plugin and an embedded Flocker in one process, in $WORK; ENDPOINT is
# passed as it is, ADDRESS is the same place as `probe` takes it.
start_standalone() {
    local accepted=()
    [[ $2 != tcp://* ]] || accepted=(--allow-unauthenticated-tcp)
    start standalone env -C "$WORK" "$FLOCKER_CSI" standalone \
        --data-dir "$WORK/data" --state-dir "$WORK/state" --device-dir "$WORK/dev" --endpoint "$1" "${accepted[@]}" "${@:3}"
    wait_for standalone "Probe answers at $2" probe "$2"
}

# unpacked_libraries DIRECTORY: the LD_LIBRARY_PATH of programs that unpack.sh has put there; nothing where it has not.
unpacked_libraries() {
    local found
    found=$(find "$1" -name '*.so.*' -printf '%h\n' 2>/dev/null | sort --unique || true)
    paste --serial --delimiters : <<<"$found"
}

# free_port: a TCP port of 127.0.0.1 on which no process listens.
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}
