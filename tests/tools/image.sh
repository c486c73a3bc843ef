#!/usr/bin/env bash
# Gathers the files of the image as `make image` does, around the program that the other tests run, and checks what the
# image promises: it contains only files without which the program does not run, and these suffice to find the control
# service by name, as root and as another user on a read-only root file system.
#
# usage: image.sh
. "$(dirname -- "$0")/lib.sh"

readonly USER_ID=65532
readonly HOSTS_NAME=hosts.flocker.test DNS_NAME=dns.flocker.test

passed=0
failed=0

# check WHAT COMMAND...: one line with the outcome of COMMAND; its output is the reason when it fails.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        say "  ok      $what"
        passed=$((passed + 1))
    else
        say "  FAILED  $what" "            ${output//$'\n'/$'\n'            }"
        failed=$((failed + 1))
    fi
}

# The files that an ELF file loads: its interpreter by path, libraries by name.
needed() {
    readelf --wide --program-headers --dynamic -- "$1" |
        sed -n -e 's/.*program interpreter: \(.*\)\]/\1/p' -e 's/.*(NEEDED).*\[\(.*\)\]/\1/p'
}

# closure ROOT: the names of all files that the program needs, directly or not, according to the ELF files in ROOT.
closure() {
    local -A known=()
    local queue=("$1/flocker-csi") name file
    while ((${#queue[@]} > 0)); do
        while read -r name; do
            [[ ${known[$(basename "$name")]:-} == "" ]] || continue
            known[$(basename "$name")]=yes
            file=$(find "$1" -path "*/${name#/}" -type f)
            [[ $file == "" ]] || queue+=("$file")
        done < <(needed "${queue[0]}")
        queue=("${queue[@]:1}")
    done
    printf '%s\n' "${!known[@]}" | sort
}

# only_what_is_needed ROOT: beside the program and its closure it contains only texts, one for each licence.
only_what_is_needed() {
    local libraries others
    libraries=$(find "$1/"lib* -type f -printf '%f\n' | sort)
    diff <(closure "$1") <(printf '%s\n' "$libraries") || return 1
    others=$(cd "$1" && find . -not -type d -not -path './lib*' -not -path ./flocker-csi |
        grep -vxE '\./usr/share/(doc/[a-z0-9-]+/copyright|common-licenses/[A-Za-z]+-[0-9.]+)') || true
    [[ $others == "" ]] || { say "not needed:" "$others"; return 1; }
}

fails() { ! "$@"; }
in_root() { chroot "$root" /flocker-csi -V; }

# fails_without LIBRARY: the program fails without it, and runs again when it is restored.
fails_without() {
    mv "$1" "$WORK/away" || return 1
    local status=0
    fails in_root || status=1
    mv "$WORK/away" "$1"
    return "$status"
}

reports() {
    install -D -m 755 "$root/flocker-csi" "$root/$1"
    fails only_what_is_needed "$root"
    local status=$?
    rm "$root/$1"
    rmdir --ignore-fail-on-non-empty "$(dirname "$root/$1")"
    return "$status"
}

open_to_everybody() {
    local odd
    odd=$(find "$root" -mindepth 1 -not \( -type d -perm 755 -o -type f -perm 755 -o -type f -path '*/usr/share/*' -perm 644 \))
    [[ $odd == "" ]] || { say "neither 755, nor a text with 644:" "$odd"; return 1; }
}

label() { sed -n 's/.*image\.version="\([^"]*\)".*/\1/p' "$ROOT/deploy/docker/Dockerfile"; }
says_its_version() { [[ "flocker-csi $(label)" == "$(in_root)" ]]; }

# container USER: the files under a read-only root, with the additions of a runtime and a pod.
container() {
    local user=$1
    mkdir -p "$WORK/container"
    mount --bind --make-private "$root" "$WORK/container"
    mount -o remount,bind,ro "$WORK/container"
    mkdir "$WORK/csi" "$WORK/state"
    chown "$user:$user" "$WORK/csi" "$WORK/state"
    mount --bind "$WORK/csi" "$WORK/container/csi"
    mount --bind "$WORK/state" "$WORK/container/var/lib/flocker-csi"
    mount --bind "$WORK/etc" "$WORK/container/etc"
    mount -o remount,bind,ro "$WORK/container/etc"
    chown -R "$user:$user" "$WORK/etc/flocker-csi"
}

remove_container() {
    umount --recursive "$WORK/container"
    rm -rf "$WORK/csi" "$WORK/state"
}

call() { "$TOOLS/bin/grpcurl" -plaintext -max-time 20 -unix -d "$2" "$WORK/csi/csi.sock" "csi.v1.$1"; }

creates_and_lists() {
    local id
    id=$(call Controller/CreateVolume '{"name": "'"$1"'", "capacity_range": {"required_bytes": 67108864},
        "volume_capabilities": [{"mount": {}, "access_mode": {"mode": "SINGLE_NODE_WRITER"}}]}' |
        tee /dev/stderr | sed -n 's/.*"volumeId": "\(.*\)".*/\1/p')
    [[ $id != "" ]] || return 1
    call Controller/ListVolumes '{}' | tee /dev/stderr | grep -qF "$id" || return 1
    call Controller/DeleteVolume '{"volume_id": "'"$id"'"}'
}

# serves USER NAME: the control service is found by NAME.
serves() {
    local user=$1 name=$2
    container "$user"
    start plugin chroot --userspec="$user:$user" --groups= "$WORK/container" /flocker-csi serve --mode controller \
        --control-service "https://$name:4523" --endpoint unix:///csi/csi.sock --cluster-cert /etc/flocker-csi/cluster.crt \
        --user-cert /etc/flocker-csi/plugin.crt --user-key /etc/flocker-csi/plugin.key
    wait_for plugin "Probe answers" probe "unix://$WORK/csi/csi.sock"
    check "user $user, control service $name: a volume is created, listed and deleted" creates_and_lists "of-$user-at-$name"
    stop plugin
    remove_container
}

# The name server must use port 53, and the control service its own port, so the test has a network of its own.
if [[ ${OUTER_NETWORK:-} == "" || $OUTER_NETWORK == "$(readlink /proc/self/ns/net)" ]]; then
    [[ $(id -u) == 0 ]] || die "a network of its own needs root: run it with sudo"
    OUTER_NETWORK=$(readlink /proc/self/ns/net)
    export OUTER_NETWORK
    exec unshare --net -- "$BASH" "$0" "$@"
fi
in_own_namespace "$@"
need_program
need_tool grpcurl
ip link set lo up

root=$WORK/root
"$ROOT/deploy/docker/files.sh" "$FLOCKER_CSI" "$root"
say "the image contains, with the program of the tests:"
find "$root" -type f -printf '  %M %10s  /%P\n' | sort -k3
check "it contains only the program, the files it loads, and licences" only_what_is_needed "$root"
check "every user may read and execute all of it" open_to_everybody
check "it runs, and has the version in the Dockerfile" says_its_version
while read -r library; do
    check "it does not run without ${library#"$root"}" fails_without "$library"
done < <(find "$root"/lib* -type f)
check "a library that is not needed is reported" reports lib/libextra.so.1
check "a program that is not needed is reported" reports bin/sh

mkdir -p "$WORK/etc/flocker-csi"
start embedded "$FLOCKER_CSI" embedded --data-dir "$WORK/data" --certificates "$WORK/etc/flocker-csi"
start dns python3 "$ROOT/tests/tools/dns.py" 127.0.0.1:53 "$DNS_NAME"
wait_for embedded "it prints its address" grep -q '^listening on https:' "$WORK/log/embedded"
wait_for dns "it prints that it is ready" grep -q '^ready' "$WORK/log/dns"
echo "127.0.0.1 $HOSTS_NAME" >"$WORK/etc/hosts"
echo "nameserver 127.0.0.1" >"$WORK/etc/resolv.conf"
# A container runtime creates the mount points.
mkdir -p "$root/csi" "$root/etc" "$root/var/lib/flocker-csi"
for user in 0 "$USER_ID"; do
    serves "$user" "$HOSTS_NAME"
    serves "$user" "$DNS_NAME"
done
check "the name server was asked for $DNS_NAME" grep -q "^asked: $DNS_NAME 1$" "$WORK/log/dns"
check "and not for what is in /etc/hosts" fails grep -q "$HOSTS_NAME" "$WORK/log/dns"
stop embedded
say "$passed passed, $failed failed"
((failed == 0))
