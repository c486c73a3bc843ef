#!/usr/bin/env bash
# Lets libFuzzer search for bytes on which a function of `fuzz/` breaks a promise: each function for a while, guided by
# the code it reaches. Bytes that break one are added to the corpus, which `make test` reads, so it fails until the fault
# is fixed; bytes that only reach new code stay under target/, where the next run continues from them.
#
# usage: fuzz.sh SECONDS [FUNCTION...]
. "$(dirname -- "$0")/lib.sh"

[[ ${1:-} =~ ^[0-9]+$ ]] || die "usage: $(basename -- "$0") SECONDS [FUNCTION...]"
seconds=$1
shift

need "$TOOLS/bin/cargo-fuzz" "install it with: make fuzz"
# No sanitizer: those need an unstable compiler, and the fuzzed code has no unsafe code.
readonly BUILD=(--sanitizer none --target-dir "$ROOT/target/fuzz")
PATH=$TOOLS/bin:$PATH
# Nothing here needs root.
unset "${!CARGO_TARGET_@}"

cd "$ROOT"
known=$(cargo fuzz list)
for name in "$@"; do
    grep -qx -- "$name" <<<"$known" || die "function $name does not exist; the functions are: ${known//$'\n'/ }"
done
if [[ $# == 0 ]]; then mapfile -t known <<<"$known" && set -- "${known[@]}"; fi

# The fuzzed code has the program's dependencies; cargo adds the engine.
cp Cargo.lock fuzz/Cargo.lock
cargo fuzz build "${BUILD[@]}"
failed=()
for name in "$@"; do
    found=target/fuzz/corpus/$name log=target/fuzz/$name.log
    mkdir -p "$found"
    say "==> $name"
    if cargo fuzz run "${BUILD[@]}" "$name" "$found" "fuzz/corpus/$name" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=16384 \
        -artifact_prefix="$ROOT/fuzz/corpus/$name/" >"$log" 2>&1 </dev/null; then
        # How much code the corpus reaches, and how much is reached now.
        grep -E 'inline 8-bit counters|INITED|DONE' "$log"
    else
        tail -n 40 -- "$log"
        failed+=("$name")
    fi
done
say "$(($# - ${#failed[@]})) passed, ${#failed[@]} failed${failed:+: ${failed[*]}}"
((${#failed[@]} == 0))
