#!/usr/bin/env bash
# Runs all of csi-sanity against the plugin, and requires the exact number of specs that belong to the announced
# capabilities: a capability that is lost skips specs, and skipped specs alone do not fail a run.
#
# usage: csi-sanity.sh standalone|split
#   standalone  one process, one socket
#   split       a controller process and a node process on two sockets, both on one embedded Flocker, with topology
. "$(dirname -- "$0")/lib.sh"

# Of csi-sanity v5.6.0; another version has other specs.
readonly PASSED=50 FAILED=0 PENDING=1 SKIPPED=52
# It requests volumes of 10 GiB, independent of the free space: so they take only what it writes, which is
# almost nothing.
readonly STORAGE=(--capacity 1TiB --allocation thin)

split_pair() {
    local control certificates=$WORK/certificates
    start embedded "$FLOCKER_CSI" embedded --listen 127.0.0.1:0 --data-dir "$WORK/data" --nodes 1 --pace instant \
        --certificates "$certificates" "${STORAGE[@]}"
    wait_for embedded "it prints its address" listening
    control=$(control_service)
    serve controller "$control"
    serve node "$control"
}

control_service() { sed -n 's/^listening on \(https:[^ ]*\).*/\1/p' "$WORK/log/embedded" | head -n 1; }
listening() { [[ -n $(control_service) ]]; }

serve() {
    start "$1" "$FLOCKER_CSI" serve --mode "$1" --topology hint --control-service "$2" \
        --cluster-cert "$certificates/cluster.crt" --user-cert "$certificates/plugin.crt" \
        --user-key "$certificates/plugin.key" --node-id-file "$certificates/node-1.id" \
        --mount-root "$WORK/data/flocker/node-1" --state-dir "$WORK/state-$1" --device-dir "$WORK/dev" \
        --endpoint "unix://$WORK/$1.sock"
    wait_for "$1" "Probe answers" probe "unix://$WORK/$1.sock"
}

# ran FILE: the counts of the closing line, "passed failed pending skipped".
ran() {
    sed -n 's/.* \([0-9]*\) Passed | \([0-9]*\) Failed | \([0-9]*\) Pending | \([0-9]*\) Skipped.*/\1 \2 \3 \4/p' "$1"
}

sanity() {
    local output=$ROOT/target/csi-sanity-$form.log code=0
    # The RPCs of csi-sanity carry no deadline of their own.
    "$TOOLS/bin/csi-sanity" "$@" --csi.mountdir "$WORK/mount" --csi.stagingdir "$WORK/staging" \
        --ginkgo.no-color --ginkgo.timeout 5m >"$output" 2>&1 || code=$?
    say "csi-sanity, $form:"
    grep -E '^(Ran [0-9]+ of|.* [0-9]+ Passed \|)' "$output" || true
    if [[ $code != 0 ]]; then
        sed -n '/^Summarizing/,/^Ran/p' "$output"
        die "csi-sanity failed with exit code $code; all it said is in $output"
    fi
    [[ $(ran "$output") == "$PASSED $FAILED $PENDING $SKIPPED" ]] ||
        die "want $PASSED passed, $FAILED failed, $PENDING pending, $SKIPPED skipped"
}

form=${1:-}
[[ $form == standalone || $form == split ]] || die "usage: $(basename -- "$0") standalone|split"
in_own_namespace "$@"
need_program
need_tool csi-sanity
need_tool grpcurl
if [[ $form == standalone ]]; then
    start_standalone "unix://$WORK/csi.sock" "unix://$WORK/csi.sock" "${STORAGE[@]}"
    sanity --csi.endpoint "unix://$WORK/csi.sock"
    stop standalone
else
    split_pair
    sanity --csi.endpoint "unix://$WORK/node.sock" --csi.controllerendpoint "unix://$WORK/controller.sock"
    stop node
    stop controller
    stop embedded
fi
