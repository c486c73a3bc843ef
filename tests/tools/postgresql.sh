#!/usr/bin/env bash
# Makes $TOOLS/postgresql the directory of the programs of PostgreSQL: those that Debian's packages have installed, else those
# in the packages themselves.
#
# usage: postgresql.sh
. "$(dirname -- "$0")/lib.sh"

# The newest of several.
programs_below() { find "$1/usr/lib/postgresql" -maxdepth 2 -name bin 2>/dev/null | sort --version-sort | tail -n 1 || true; }

programs=$(programs_below "")
if [[ $programs == "" || ! -x $programs/initdb || ! -x $programs/pg_amcheck ]]; then
    "$ROOT/tests/tools/unpack.sh" postgresql "$TOOLS/postgresql-files"
    programs=$(programs_below "$TOOLS/postgresql-files")
    [[ -x $programs/initdb ]] || die "the packages of PostgreSQL have no initdb"
fi
ln -sfn "$programs" "$TOOLS/postgresql"
