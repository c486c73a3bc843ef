#!/usr/bin/env bash
# Makes $TOOLS/postgresql the directory of the programs of PostgreSQL: those that Debian's packages have installed, else those
# in the packages themselves. They are unpacked and not installed, because with their installation Debian makes and starts a
# database.
#
# usage: postgresql.sh
. "$(dirname -- "$0")/lib.sh"

# The newest of several.
installed=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort --version-sort | tail -n 1)
if [[ $installed != "" && -x $installed/initdb && -x $installed/pg_amcheck ]]; then
    ln -sfn "$installed" "$TOOLS/postgresql"
    exit 0
fi
[[ $(type -P apt-get) != "" ]] || die "PostgreSQL is missing, and there is no apt-get to download it"
as_root=()
[[ $(id -u) == 0 ]] || as_root=(sudo)
WORK=$(mktemp --directory)
trap 'rm -rf -- "$WORK"' EXIT
mkdir -p "$WORK/archives/partial"
# With everything that it needs and this machine lacks.
download() {
    apt-get install --quiet=2 --yes --download-only --no-install-recommends -o Debug::NoLocking=1 \
        -o Dir::Cache::archives="$WORK/archives" postgresql >/dev/null
}
# A new machine has no lists of packages, and old lists name versions that no longer exist.
download 2>/dev/null || { "${as_root[@]}" apt-get update --quiet=2 && download; }
readonly FILES=$TOOLS/postgresql-files
rm -rf "$FILES"
for package in "$WORK"/archives/*.deb; do dpkg-deb --extract "$package" "$FILES"; done
unpacked=$(find "$FILES/usr/lib/postgresql" -maxdepth 2 -name bin | sort --version-sort | tail -n 1)
[[ -x $unpacked/initdb ]] || die "the packages of PostgreSQL have no initdb"
ln -sfn "$unpacked" "$TOOLS/postgresql"
