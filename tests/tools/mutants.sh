#!/usr/bin/env bash
# Shows that the model test finds bugs. Each patch in tests/mutants removes one safety measure from a copy of the plugin;
# the model test, without a new build, must fail with that program, and must name the rule that the patch names.
#
# A copy is built as `make build` builds the program, where registry crates are built already (with a cargo older than
# 1.91 they are built again, under target/mutants), but its program is put elsewhere: the one that the other parts
# run stays as it is.
. "$(dirname -- "$0")/lib.sh"

readonly TEST=model::no_sequence_of_calls_and_failures_breaks_an_invariant
readonly COPIES=$ROOT/target/mutants
readonly COPY=$COPIES/tree
readonly MUTANT=$COPIES/debug/flocker-csi

# Another version, so that cargo never takes files of the copy for those of the original, or the reverse.
copy_sources() {
    rm -rf -- "$COPY"
    mkdir -p "$COPY"
    local crates=(*/Cargo.toml)
    cp --archive -- Cargo.toml Cargo.lock build.rs "${crates[@]%/Cargo.toml}" src tests benches "$COPY/"
    sed --in-place '/^\[workspace.package\]/,/^$/ s/^version = .*/version = "0.0.0"/' "$COPY/Cargo.toml"
}

build_mutant() {
    # A mutant leaves code unused; its warnings are not shown.
    local shared=${CARGO_TARGET_DIR:-$ROOT/target}
    CARGO_BUILD_BUILD_DIR=$shared CARGO_TARGET_DIR=$COPIES CARGO_TERM_QUIET=true \
        cargo build --manifest-path "$COPY/Cargo.toml" --bin flocker-csi --example csc >"$COPIES/build.log" 2>&1 ||
        { cat -- "$COPIES/build.log"; return 1; }
}

run_model() {
    PROGRAM_UNDER_TEST=$MUTANT MODEL_SHRINKS=0 RUST_BACKTRACE=0 \
        timeout --foreground --kill-after=10s 10m cargo test --quiet --workspace --locked --test integration -- --exact "$TEST" --nocapture
}

# try PATCH: fails unless the model test fails because of it.
try() {
    local patch=$1 name rule log began=$SECONDS
    name=$(basename -- "$patch" .patch)
    rule=$(sed -n 's/^broken: //p' "$patch")
    log=$COPIES/$name.log
    [[ $rule != "" ]] || die "$patch names no rule that it breaks"
    GIT_CEILING_DIRECTORIES=$COPIES git -C "$COPY" apply -p0 -C1 "$ROOT/$patch" ||
        die "$patch no longer applies: make it again from the current code"
    build_mutant || die "the copy with $patch cannot be built"
    local built=$((SECONDS - began)) result=0
    run_model >"$log" 2>&1 || result=$?
    # Copied without their times, so that cargo sees that they changed again.
    sed -n 's/^--- //p' "$patch" | while read -r file; do cp -- "$file" "$COPY/$file"; done
    if [[ $result == 0 ]]; then
        say "$name survives: the model test did not detect it"
        return 1
    fi
    if ! grep --quiet --fixed-strings "broken: $rule" "$log"; then
        say "$name: the model test failed, but not because of \"$rule\":"
        tail -n 40 -- "$log"
        return 1
    fi
    say "$name is detected: $rule (built in ${built} s, detected in $((SECONDS - began - built)) s)"
}

cd "$ROOT"
copy_sources
survivors=0
for patch in tests/mutants/*.patch; do
    try "$patch" || survivors=$((survivors + 1))
done
rm -rf -- "$COPY"
((survivors == 0)) || die "$survivors mutants survive"
