#!/usr/bin/env bash
# Renders the chart with each set of values in tests/chart/values, and compares the renders, deploy/kubernetes and the
# chart itself with the tests in tests/chart. An embedded Flocker makes the certificates with which the shipped command
# lines are checked.
#
# usage: chart.sh
. "$(dirname -- "$0")/lib.sh"

in_own_namespace "$@"
need_program
for tool in helm helm-docs podsecurity; do need_tool "$tool"; done
need "$TOOLS/venv/bin/python" "install it with: make tools"
start embedded "$FLOCKER_CSI" embedded --data-dir "$WORK/data" --certificates "$WORK/certificates" --listen 127.0.0.1:0
wait_for embedded "certificates" test -s "$WORK/certificates/plugin.key"
stop embedded
export TOOLS FLOCKER_CSI CERTIFICATES=$WORK/certificates PYTHONDONTWRITEBYTECODE=yes
# Helm keeps nothing of one run for the next.
export HOME=$WORK
"$TOOLS/venv/bin/python" "$ROOT/tests/chart"
