#!/usr/bin/env bash
# Puts prometheus and promtool into $TOOLS/bin: those on PATH, else those of Debian's package.
#
# usage: prometheus.sh
. "$(dirname -- "$0")/lib.sh"

mkdir -p "$TOOLS/bin"
if [[ $(type -P prometheus) != "" && $(type -P promtool) != "" ]]; then
    ln -sf "$(type -P prometheus)" "$(type -P promtool)" "$TOOLS/bin"
    exit 0
fi
"$ROOT/tests/tools/unpack.sh" prometheus "$TOOLS/prometheus-files"
ln -sf "$TOOLS"/prometheus-files/usr/bin/{prometheus,promtool} "$TOOLS/bin"
