#!/usr/bin/env bash
# Runs every test, fastest first, and ends with a table of what ran and how long it took. A part that fails does not stop
# the other parts; a part that cannot run has failed.
#
# usage: test.sh [PART...]
# Without arguments it runs all parts; with arguments these and the parts they need, and the table lists what was left out.
. "$(dirname -- "$0")/lib.sh"

readonly PARTS=(
    format tree dependencies preflight clippy docs build cargo-test mutants go-clients-build
    grpcurl grpcio csi-sanity csi-sanity-split clients csc chart monitoring postgres demo image leftovers
)
# A test that hangs must not use up the time of the whole run.
readonly CARGO_TEST_TIMEOUT=45m

# Tests mostly wait: for agents, for deadlines, for the disk. So several run for each processor, but not so many that a
# test that waits for a process considers it dead.
processors=$(nproc)
export RUST_TEST_THREADS=${RUST_TEST_THREADS:-$((processors < 4 ? processors * 4 : 16))}

# Parts that run the program: they also run `build`, and fail at once if it failed.
readonly RUN_PROGRAM=" grpcurl grpcio csi-sanity csi-sanity-split clients csc chart monitoring postgres demo image "

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo --preserve-env=TOOLS,FLOCKER_CSI,CARGO_TARGET_DIR,TMPDIR "$@"
    fi
}

format() {
    if cargo fmt --all --check -- --files-with-diff; then
        say "every file is formatted"
    else
        say "these files are not formatted as rustfmt.toml says: run cargo fmt --all"
        return 1
    fi
}
tree() { tests/tools/check-tree.sh; }
dependencies() { python3 tests/tools/check_dependencies.py; }
preflight() { as_root tests/tools/preflight.sh; }
clippy() { cargo clippy --workspace --all-targets --locked -- -D warnings; }
docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked; }
build() { make --no-print-directory build && built=yes; }
cargo_test() { timeout --foreground --kill-after=10s "$CARGO_TEST_TIMEOUT" cargo test --workspace --locked; }
mutants() { tests/tools/mutants.sh; }
go_clients_build() { make --no-print-directory clients; }
grpcurl() { as_root tests/tools/grpcurl.sh; }
grpcio() { as_root tests/tools/grpcio.sh; }
csi_sanity() { as_root tests/tools/csi-sanity.sh standalone; }
csi_sanity_split() { as_root tests/tools/csi-sanity.sh split; }
chart() { as_root tests/tools/chart.sh; }
monitoring() { as_root tests/tools/monitoring.sh; }
postgres() { as_root tests/tools/postgres.sh; }
clients() { as_root tests/tools/clients.sh; }
image() { as_root tests/tools/image.sh; }
demo() { as_root tests/tools/demo-check.sh; }

csc() {
    local csc=${CSC:-}
    [[ $csc != "" ]] || csc=$(type -P csc) || true
    if [[ $csc == "" ]]; then
        NOTE="no csc on PATH and none given by CSC=; tests/tools/csc replaces it"
        say "$NOTE"
        as_root tests/tools/walkthrough.sh
        return
    fi
    NOTE="run with $csc"
    as_root tests/tools/walkthrough.sh "$csc"
}

leftovers() {
    tests/tools/snapshot.sh >"$RUN/after"
    if diff --unified=0 "$RUN/before" "$RUN/after" >"$RUN/difference"; then
        say "loop devices, mounts and /dev/flocker-csi are unchanged"
        return 0
    fi
    say "the tests left this behind (+) or removed this (-):"
    grep '^[+-][^+-]' "$RUN/difference"
    return 1
}

# duration SECONDS
duration() { printf '%dm%02ds' $(($1 / 60)) $(($1 % 60)); }

# part NAME: runs it and writes its line of the table.
part() {
    local name=$1 began=$SECONDS result code=0
    say "" "==> $name"
    NOTE=
    if [[ $RUN_PROGRAM == *" $name "* && $built == no ]]; then
        say "not run: the program could not be built"
        code=1
    else
        "${name//-/_}" </dev/null || code=$?
    fi
    case $code in
    0) result=ok passed=$((passed + 1)) ;;
    *)
        result=FAILED failed=$((failed + 1))
        say "==> $name failed with exit code $code"
        ;;
    esac
    printf '%-18s %-8s %7s  %s\n' "$name" "$result" "$(duration $((SECONDS - began)))" "$NOTE" >>"$RUN/table"
}

cd "$ROOT"
if [[ $# == 0 ]]; then set -- "${PARTS[@]}"; fi
for name in "$@"; do
    [[ " ${PARTS[*]} " == *" $name "* ]] || die "part $name does not exist; the parts are: ${PARTS[*]}"
    [[ $RUN_PROGRAM != *" $name "* ]] || set -- "$@" build
done
RUN=$(mktemp --directory --suffix=.flocker-csi)
trap 'rm -rf -- "$RUN"' EXIT
tests/tools/snapshot.sh >"$RUN/before"
built=no
passed=0
failed=0
for name in "${PARTS[@]}"; do
    if [[ " $* " == *" $name "* ]]; then
        part "$name"
    else
        printf '%-18s left out\n' "$name" >>"$RUN/table"
    fi
done
say "" "==> what ran, in $(duration "$SECONDS")"
cat "$RUN/table"
say "$passed passed, $failed failed"
((failed == 0))
