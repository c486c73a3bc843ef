#!/usr/bin/env bash
# Calls the plugin on a Unix socket with Python's grpcio, without any option. Its C core puts the escaped socket path into
# :authority, which a strict HTTP/2 server refuses.
#
# usage: grpcio.sh
. "$(dirname -- "$0")/lib.sh"

in_own_namespace "$@"
need_program
need_tool grpcurl
need "$TOOLS/venv/bin/python" "install it with: make tools"
start_standalone "unix://$WORK/csi.sock" "unix://$WORK/csi.sock"
"$TOOLS/venv/bin/python" "$ROOT/tests/tools/grpcio_probe.py" "unix://$WORK/csi.sock"
stop standalone
