#!/usr/bin/env bash
# Runs the plugin on a real Kubernetes of two nodes on this machine, and leaves nothing behind: processes, mounts, loop
# devices, control groups, kernel settings and files are as they were before, also after a failure or an interrupt.
#
# usage: run.sh [CHAPTER...]
# Without arguments all chapters; with arguments these chapters and what they need.
# shellcheck source=tests/tools/lib.sh
. "$(dirname -- "$0")/../tools/lib.sh"

HERE=$ROOT/tests/kubernetes
BINARIES=$ROOT/target/kubernetes/bin
PROGRAM=$ROOT/target/image/release/flocker-csi
IMAGE=$ROOT/target/image/flocker-csi.oci.tar
CGROUP=flocker-csi-e2e
# What a kubelet sets at its start.
SYSCTLS=(vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes)

hierarchies() {
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
    else
        find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
    fi
}

# A node's pods are below a control group of its own, or the kubelets would take each other's for leftovers.
make_cgroups() {
    local hierarchy node group file
    while read -r hierarchy; do
        for node in "" /node1 /node2; do
            group=$hierarchy/$CGROUP$node
            mkdir "$group"
            for file in cpuset.cpus cpuset.mems; do
                [[ ! -e $group/$file || -s $group/$file ]] || cat "$group/../$file" >"$group/$file"
            done
            if [[ -e $group/cgroup.controllers ]]; then
                sed 's/\</+/g' "$group/../cgroup.controllers" >"$group/../cgroup.subtree_control"
            fi
        done
    done < <(hierarchies)
}

remove_cgroups() {
    local hierarchy
    while read -r hierarchy; do
        [[ ! -d $hierarchy/$CGROUP ]] || find "$hierarchy/$CGROUP" -depth -type d -exec rmdir {} +
    done < <(hierarchies)
}

keep_sysctls() {
    local name
    for name in "${SYSCTLS[@]}"; do
        [[ ! -r /proc/sys/$name ]] || printf '%s %s\n' "$name" "$(cat "/proc/sys/$name")"
    done >"$SCRATCH/sysctls"
}

restore_sysctls() {
    local name value
    while read -r name value; do
        [[ $(cat "/proc/sys/$name") == "$value" ]] || printf '%s' "$value" >"/proc/sys/$name"
    done <"$SCRATCH/sysctls"
}

# What a run could leave behind, but not the changes of other programs on this machine.
state() {
    local name hierarchy
    { "$ROOT/tests/tools/snapshot.sh" && ps -e -o args=; } | SCRATCH=$SCRATCH awk 'index($0, ENVIRON["SCRATCH"])'
    while read -r hierarchy; do
        find "$hierarchy" -maxdepth 1 -type d -printf 'cgroup %p\n'
    done < <(hierarchies) | LC_ALL=C sort
    for name in "${SYSCTLS[@]}"; do printf 'sysctl %s %s\n' "$name" "$(cat "/proc/sys/$name" 2>/dev/null)"; done
}

devices_free() {
    [[ $(attached_loop_devices | awk -v work="$SCRATCH/" 'index($2, work) == 1') == "" ]]
}

take_down() {
    local status=$? device backing
    set +e
    trap '' INT TERM PIPE
    if [[ ${BASE:-} != "" ]]; then
        # With it every process and every mount of the cluster ends, at one blow.
        kill -KILL "$BASE" 2>/dev/null
        wait "$BASE" 2>/dev/null
    fi
    wait_until 10 devices_free
    while read -r device backing; do
        [[ $backing != "$SCRATCH"/* ]] || losetup --detach "$device"
    done < <(attached_loop_devices)
    restore_sysctls
    wait_until 10 remove_cgroups 2>/dev/null || say "control groups are left"
    if [[ $status != 0 && -d $SCRATCH/log ]]; then
        rm -rf -- "$LOGS"
        cp -r "$SCRATCH/log" "$LOGS"
        say "the logs are in $LOGS"
    fi
    rm -rf --one-file-system -- "$SCRATCH"
    { state; [[ ! -e $SCRATCH ]] || say "directory $SCRATCH"; } >"$BEFORE.after"
    if diff --unified=0 "$BEFORE" "$BEFORE.after" >"$BEFORE.difference"; then
        say "nothing is left on this machine: processes, mounts, loop devices, control groups, settings, files"
    else
        say "left behind (+) or taken away (-):" "$(grep '^[+-][^+-]' "$BEFORE.difference")"
        status=1
    fi
    rm -f -- "$BEFORE" "$BEFORE.after" "$BEFORE.difference"
    exit "$status"
}

[[ $(id -u) == 0 ]] || die "mounting needs root: run it with sudo"
for tool in etcd containerd runc ctr busybox openssl nsenter losetup ip python3; do
    type -P "$tool" >/dev/null || die "$tool is missing; install it with: make setup-kubernetes"
done
for binary in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl csi-provisioner csi-attacher; do
    need "$BINARIES/$binary" "build it with: make e2e-kubernetes"
done
need_tool helm
need "$PROGRAM" "build it with: make image"
[[ -e $IMAGE ]] || die "$IMAGE is missing; build it with: make image"

# Those of a run that was killed are empty, and those of one that goes on are not.
remove_cgroups 2>/dev/null || die "another run goes on: its processes are in the control groups $CGROUP"
SCRATCH=$(mktemp --directory --tmpdir=/var/tmp flocker-csi-kubernetes.XXXXXX)
BEFORE=$(mktemp)
LOGS=$ROOT/target/kubernetes/log
state >"$BEFORE"
# A pod's unprivileged process must reach its volumes below this directory.
chmod 0755 "$SCRATCH"
keep_sysctls
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
make_cgroups
PYTHONPATH=$HERE PYTHONDONTWRITEBYTECODE=1 \
    setpriv --pdeathsig KILL -- unshare --mount --net --pid --fork --kill-child -- \
    "$BASH" "$HERE/base.sh" "$ROOT" "$SCRATCH" \
    python3 -m e2e --work="$SCRATCH" --binaries="$BINARIES" --helm="$TOOLS/bin/helm" --program="$PROGRAM" \
    --image="$IMAGE" --cgroup="$CGROUP" --only="$*" &
BASE=$!
wait "$BASE"
