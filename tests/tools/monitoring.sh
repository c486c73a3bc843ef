#!/usr/bin/env bash
# Checks deploy/monitoring: the rules with promtool, names against docs/metrics.md, and all of it with a real Prometheus that
# scrapes two plugins: one whose Flocker is stopped and started again, and one with a Flocker in the same process.
#
# usage: monitoring.sh
. "$(dirname -- "$0")/lib.sh"

readonly MONITORING=$ROOT/deploy/monitoring
passed=0

ok() {
    say "  ok      $1"
    passed=$((passed + 1))
}

python() { "$TOOLS/venv/bin/python" -B "$@"; }
monitoring() { python "$ROOT/tests/tools/monitoring.py" "$@"; }
promtool() { "$TOOLS/bin/promtool" "$@"; }
call() { "$TOOLS/bin/grpcurl" -plaintext -max-time 10 -unix -d "$2" "$WORK/csi.sock" "csi.v1.$1"; }
# get ADDRESS PATH
get() { python -c 'import sys, urllib.request as r; print(r.urlopen("http://%s%s" % tuple(sys.argv[1:]), timeout=5).read().decode(), end="")' "$@"; }

start_flocker() {
    start embedded "$FLOCKER_CSI" embedded --listen "$flocker" --data-dir "$WORK/flocker" --certificates "$WORK/certificates" \
        --metrics-address "$storage"
    wait_for embedded "it listens" grep -q '^listening on' "$WORK/log/embedded"
}

start_plugin() {
    start plugin "$FLOCKER_CSI" serve --control-service "https://$flocker" --cluster-cert "$WORK/certificates/cluster.crt" \
        --user-cert "$WORK/certificates/plugin.crt" --user-key "$WORK/certificates/plugin.key" \
        --node-id-file "$WORK/certificates/node-1.id" --mount-root "$WORK/flocker/flocker/node-1" \
        --state-dir "$WORK/plugin-state" --device-dir "$WORK/plugin-dev" --endpoint "unix://$WORK/csi.sock" \
        --metrics-address "$plugin"
    wait_for plugin "it is ready" get "$plugin" /readyz
}

readonly CREATE='{"name": "data", "capacity_range": {"required_bytes": 67108864}, "volume_capabilities":
    [{"mount": {}, "access_mode": {"mode": "SINGLE_NODE_WRITER"}}]}'

# Each histogram moves, and nothing is left of the volume but its deletion.
volume_lives() {
    local id
    id=$(call Controller/CreateVolume "$CREATE" | sed -n 's/.*"volumeId": "\(.*\)".*/\1/p')
    call Node/NodeStageVolume "{\"volume_id\": \"$id\", \"staging_target_path\": \"$WORK/staging\", \"volume_capability\":
        {\"mount\": {}, \"access_mode\": {\"mode\": \"SINGLE_NODE_WRITER\"}}}" >/dev/null
    call Node/NodeUnstageVolume "{\"volume_id\": \"$id\", \"staging_target_path\": \"$WORK/staging\"}" >/dev/null
    call Controller/DeleteVolume "{\"volume_id\": \"$id\"}" >/dev/null
}
every_query_returns_data() {
    volume_lives
    monitoring dashboard "$prometheus" "$WORK/seen" >"$WORK/log/dashboard"
}

in_own_namespace "$@"
need_program
for tool in grpcurl prometheus promtool; do need_tool "$tool"; done
need "$TOOLS/venv/bin/python" "install it with: make tools"

promtool check rules "$MONITORING/rules.yaml" >"$WORK/log/rules" 2>&1
ok "promtool accepts the rules"
# Beside the rules that they test.
(cd "$MONITORING" && promtool test rules rules-test.yaml) >"$WORK/log/rules" 2>&1
ok "each alert fires when its unit test says so"
python "$ROOT/tests/tools/check_monitoring.py" "$ROOT" >"$WORK/log/names"
ok "$(cat "$WORK/log/names")"

flocker=127.0.0.1:$(free_port)
plugin=127.0.0.1:$(free_port)
standalone=127.0.0.1:$(free_port)
storage=127.0.0.1:$(free_port)
prometheus=127.0.0.1:$(free_port)
start_flocker
start_plugin
start_standalone "unix://$WORK/standalone.sock" "unix://$WORK/standalone.sock" --metrics-address "$standalone"

mkdir "$WORK/prometheus"
monitoring config "$WORK/prometheus" "$plugin" "$standalone"
start prometheus env -C "$WORK/prometheus" "$TOOLS/bin/prometheus" --config.file=prometheus.yaml --storage.tsdb.path=data \
    --web.listen-address="$prometheus"
wait_for prometheus "it has loaded the rules and scraped both plugins" monitoring scraped "$prometheus" 2
ok "$("$TOOLS/bin/prometheus" --version 2>&1 | sed -n '1s/^prometheus, version \([^ ]*\).*/Prometheus \1/p') scrapes both plugins and loads the rules"

# Flocker lists no such node, so that this waits.
volume=$(call Controller/CreateVolume "${CREATE/data/waits}" | sed -n 's/.*"volumeId": "\(.*\)".*/\1/p')
node=$(python -c 'import uuid; print(uuid.uuid4())')
readonly PUBLISHED="{\"volume_id\": \"$volume\", \"node_id\": \"$node\""
start publish "$TOOLS/bin/grpcurl" -plaintext -max-time 50 -unix -d "$PUBLISHED, \"volume_capability\":
    {\"mount\": {}, \"access_mode\": {\"mode\": \"SINGLE_NODE_WRITER\"}}}" "$WORK/csi.sock" csi.v1.Controller/ControllerPublishVolume
wait_until 20 every_query_returns_data || die "$(cat "$WORK/log/dashboard")"
ok "the dashboard's $(cat "$WORK/log/dashboard") return data"
for address in "$plugin" "$standalone" "$storage"; do
    get "$address" /metrics | monitoring text | promtool check metrics >"$WORK/log/metrics" 2>&1
done
ok "promtool has nothing to say about the metrics of either plugin, nor about those of an embedded Flocker alone"
monitoring firing "$prometheus" >"$WORK/log/alerts"
ok "no alert is firing"

# What waits ends with the inverse call.
call Controller/ControllerUnpublishVolume "$PUBLISHED}" >/dev/null
call Controller/DeleteVolume "{\"volume_id\": \"$volume\"}" >/dev/null
stop embedded
wait_until 60 monitoring firing "$prometheus" FlockerCsiFlockerUnreachable || die "Flocker is stopped, and no alert, or another one, is firing"
ok "with Flocker stopped: $(monitoring firing "$prometheus" FlockerCsiFlockerUnreachable)"
start_flocker
wait_until 60 monitoring firing "$prometheus" || die "Flocker answers again, and an alert is firing"
ok "with Flocker started again no alert is firing"
stop plugin
wait_until 20 monitoring firing "$prometheus" FlockerCsiDown || die "the plugin is stopped, and no alert, or another one, is firing"
ok "with the plugin stopped: $(monitoring firing "$prometheus" FlockerCsiDown)"

stop prometheus
stop standalone
stop embedded
say "$passed passed, 0 failed"
