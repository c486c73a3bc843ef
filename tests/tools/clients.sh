#!/usr/bin/env bash
# Runs the walk-through of a volume's life, in each form of an endpoint, with two Go clients that connect as the two
# builds of csc do; see tests/tools/go. The plugin is started with the endpoint in the same form.
#
# usage: clients.sh
. "$(dirname -- "$0")/lib.sh"

# walk CLIENT ENDPOINT: in the directory of the socket, for the sake of relative paths.
walk() {
    env -C "$WORK" "$TOOLS/bin/walkthrough-$1" -work "$WORK/walk" "$2" | tee -a "$WORK/walked" ||
        die "the walk-through of the $1 client at $2 failed"
}

in_own_namespace "$@"
need_program
need_tool grpcurl
need_tool walkthrough-old
need_tool walkthrough-new
mkdir "$WORK/walk"
tcp=tcp://127.0.0.1:$(free_port)
for endpoint in "unix://$WORK/csi.sock" "$WORK/csi.sock" csi.sock "$tcp"; do
    address=unix://$WORK/csi.sock
    [[ $endpoint != tcp://* ]] || address=$endpoint
    start_standalone "$endpoint" "$address"
    walk old "$endpoint"
    walk new "$endpoint"
    stop standalone
done
awk '/^[0-9]+ passed, [0-9]+ failed$/ { passed += $1; failed += $3 }
     END { print passed " passed, " failed " failed" }' "$WORK/walked"
