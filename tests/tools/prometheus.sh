#!/usr/bin/env bash
# Puts prometheus and promtool into $TOOLS/bin: those on PATH, else those of Debian's package. That is unpacked and not
# installed, because with its installation Debian starts a service.
#
# usage: prometheus.sh
. "$(dirname -- "$0")/lib.sh"

mkdir -p "$TOOLS/bin"
if [[ $(type -P prometheus) != "" && $(type -P promtool) != "" ]]; then
    ln -sf "$(type -P prometheus)" "$(type -P promtool)" "$TOOLS/bin"
    exit 0
fi
[[ $(type -P apt-get) != "" ]] || die "prometheus and promtool are missing, and there is no apt-get to download them"
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo)
WORK=$(mktemp --directory)
trap 'rm -rf -- "$WORK"' EXIT
download() { (cd "$WORK" && apt-get download --quiet=2 prometheus); }
# A new machine has no lists of packages, and old lists name versions that no longer exist.
download 2>/dev/null || { "${as_root[@]}" apt-get update --quiet=2 && download; }
dpkg-deb --extract "$WORK"/prometheus_*.deb "$WORK/files"
install "$WORK/files/usr/bin/prometheus" "$WORK/files/usr/bin/promtool" "$TOOLS/bin"
