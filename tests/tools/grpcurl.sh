#!/usr/bin/env bash
# Lists the plugin's services by server reflection, as grpcurl does without a .proto file, describes each of them, and
# checks the health service.
#
# usage: grpcurl.sh
. "$(dirname -- "$0")/lib.sh"

readonly SERVICES=(csi.v1.Identity csi.v1.Controller csi.v1.Node csi.v0.Identity csi.v0.Controller csi.v0.Node grpc.health.v1.Health)

passed=0
grpcurl() { "$TOOLS/bin/grpcurl" -plaintext -max-time 10 -unix "$@"; }

in_own_namespace "$@"
need_program
need_tool grpcurl
socket=$WORK/csi.sock
start_standalone "unix://$socket" "unix://$socket"

listed=$(grpcurl "$socket" list)
for service in "${SERVICES[@]}"; do
    grep -qxF "$service" <<<"$listed" || die "reflection does not list $service, only: ${listed//$'\n'/ }"
    methods=$(grpcurl "$socket" describe "$service" | grep -c '^  rpc ') || die "$service is described without methods"
    say "  ok      $service: $methods methods"
    passed=$((passed + 1))
done
health=$(grpcurl "$socket" grpc.health.v1.Health/Check)
grep -q '"SERVING"' <<<"$health" || die "want health SERVING, got: $health"
say "  ok      health: SERVING"
passed=$((passed + 1))
stop standalone
say "$passed passed, 0 failed"
