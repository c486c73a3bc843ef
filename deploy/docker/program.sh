#!/usr/bin/env bash
# Builds the program for the image: the same bytes wherever and whenever this commit is built. Neither the date nor the
# paths of the checkout, of the target directory and of Cargo's downloads get into it.
#
# usage: program.sh TARGET_DIRECTORY
# The program is TARGET_DIRECTORY/release/flocker-csi. That directory is not the one of other builds, because cargo
# builds everything again when it comes with other flags.
set -euo pipefail

target=$(realpath --canonicalize-missing -- "$1")
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."

# The last one that fits counts. Cargo leaves flags out of its hashes, which get into paths, where it sees one of these.
flags=(
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    "--remap-path-prefix=$PWD=/flocker-csi"
    "--remap-path-prefix=$target=/target"
)
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
# OpenSSL keeps the date of its build, and where its engines and modules would be, had it any: below the directory that it
# is built in, unless its Makefile is given others. One date for every commit, as it is built again for none of them.
export SOURCE_DATE_EPOCH=0 GNUMAKEFLAGS="ENGINESDIR=/usr/local/ssl/engines MODULESDIR=/usr/local/ssl/modules"
cargo build --release --locked --bin flocker-csi --target-dir "$target"
