#!/usr/bin/env bash
# Unpacks a package of Debian, with everything that it needs and this machine lacks, into a directory that does not exist yet.
# Nothing is installed: with their installation Debian starts the services of some packages.
#
# usage: unpack.sh PACKAGE DIRECTORY
. "$(dirname -- "$0")/lib.sh"

readonly PACKAGE=$1 DIRECTORY=$2
[[ $(type -P apt-get) != "" ]] || die "$PACKAGE is missing, and there is no apt-get to download it"
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo)
WORK=$(mktemp --directory)
trap 'rm -rf -- "$WORK"' EXIT
mkdir -p "$WORK/archives/partial"
download() {
    apt-get install --quiet=2 --yes --download-only --no-install-recommends -o Debug::NoLocking=1 \
        -o Dir::Cache::archives="$WORK/archives" "$PACKAGE" >/dev/null
}
# A new machine has no lists of packages, and old lists name versions that no longer exist.
download 2>/dev/null || { "${as_root[@]}" apt-get update --quiet=2 && download; }
mkdir "$WORK/files"
for archive in "$WORK"/archives/*.deb; do dpkg-deb --extract "$archive" "$WORK/files"; done
# Whole or not at all.
rm -rf "$DIRECTORY"
mv "$WORK/files" "$DIRECTORY"
