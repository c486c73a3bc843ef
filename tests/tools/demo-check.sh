#!/usr/bin/env bash
# Holds `flocker-csi demo` to its promise to leave nothing behind: loop devices, mounts, device nodes, files and processes
# are compared before and after one whole run, and after one run for each line it prints, interrupted at that line.
#
# usage: demo-check.sh
. "$(dirname -- "$0")/lib.sh"

[[ $(id -u) == 0 ]] || die "the demo mounts, which needs root: run it with sudo"
need_program
scratch=$(mktemp --directory --suffix=.flocker-csi)
runs=$scratch/runs
mkdir "$scratch/tmp" "$runs"
demo=
passed=0

tidy() {
    local status=$?
    set +e
    trap '' INT TERM PIPE
    [[ $demo == "" ]] || kill -KILL -- "-$demo" 2>/dev/null
    WORK=$scratch
    leave_nothing || status=1
    rm -rf --one-file-system -- "$scratch"
    exit "$status"
}
trap tidy EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# A process group of its own, as a shell gives to each job: signals go to all of it, and what is left of it is seen.
set -m

snapshot() { "$ROOT/tests/tools/snapshot.sh" "$scratch/tmp" "$demo" >"$1"; }

lines() { wc -l <"$runs/output"; }

# The demo has ended, or has printed line N.
reached() { (($(lines) >= $1)) || over; }
over() { [[ $(jobs -rp) == "" ]]; }

# run NAME N: one run of the demo, interrupted when it has printed N lines; 0 lets it go through.
run() {
    local name=$1 line=$2 code=0
    demo=
    snapshot "$runs/before"
    # Emptied before the start, lest lines of the run before be counted.
    : >"$runs/output"
    TMPDIR=$scratch/tmp "$FLOCKER_CSI" demo >>"$runs/output" 2>&1 </dev/null &
    demo=$!
    if ((line > 0)); then
        wait_until 120 reached "$line" || die "$name: no line $line within 120 s: $(tail -n 5 "$runs/output")"
        kill -INT -- "-$demo" 2>/dev/null || true
    fi
    wait_until 120 over || die "$name: still running after 120 s: $(tail -n 5 "$runs/output")"
    wait "$demo" || code=$?
    snapshot "$runs/after"
    demo=
    if ! diff --unified=0 "$runs/before" "$runs/after" >"$runs/difference"; then
        say "  FAILED  $name: exit code $code, and it left this behind:"
        grep '^[+-][^+-]' "$runs/difference"
        exit 1
    fi
    if [[ $line == 0 && $code != 0 ]] || ((code != 0 && code != 1 && code != 130)); then
        tail -n 20 "$runs/output"
        die "$name: unexpected exit code $code"
    fi
    say "  ok      $name: exit code $code, nothing left behind"
    passed=$((passed + 1))
}

run "whole" 0
cat "$runs/output"
steps=$(lines)
((steps > 0)) || die "the demo printed nothing"
for ((step = 1; step <= steps; step++)); do
    run "interrupted at line $step of $steps" "$step"
done
say "$passed passed, 0 failed"
