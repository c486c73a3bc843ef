#!/usr/bin/env bash
# Puts fio into $TOOLS/bin: the one on PATH, else that of Debian's package.
#
# usage: fio.sh
. "$(dirname -- "$0")/lib.sh"

mkdir -p "$TOOLS/bin"
if [[ $(type -P fio) != "" ]]; then
    ln -sf "$(type -P fio)" "$TOOLS/bin"
    exit 0
fi
"$ROOT/tests/tools/unpack.sh" fio "$TOOLS/fio-files"
ln -sf "$TOOLS/fio-files/usr/bin/fio" "$TOOLS/bin"
