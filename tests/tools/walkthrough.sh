#!/usr/bin/env bash
# Runs the commands of docs/csc.md in each form of an endpoint, and compares their output with the page: with a real csc,
# rexray's or dell's, or else with the stand-in of tests/tools/csc as both. Dell's build cannot resolve every form of an
# endpoint, and reports that before it connects.
#
# usage: walkthrough.sh [CSC]
. "$(dirname -- "$0")/lib.sh"

readonly PAGE=$ROOT/docs/csc.md
readonly STAND_IN=${FLOCKER_CSI%/*}/examples/csc
# The paths of the plugin and the volume on the page.
readonly SOCKETS=/run/flocker-csi PLACE=/mnt

passed=0

# commands BUILD: the command lines of the page, each with its line number before it and its expected output after it,
# separated by \x1f and ended by \x1e.
commands() {
    awk -v build="$1" '
        function end() { if (command != "") printf "%s\x1f%s\x1f%s\x1e", line, command, shown; command = shown = "" }
        /^```/ { end(); inside = !inside && ($0 == "```console" || $0 == "```console " build); next }
        inside && /^\$ / { end(); command = substr($0, 3); line = NR; next }
        inside { shown = shown $0 "\n" }
    ' "$PAGE"
}

# matches SHOWN ACTUAL: whether they are equal except for blanks, with variables for their values and … for any text.
matches() {
    local pattern=$1 actual=$2 name
    for name in NODE ID OTHER CONTEXT; do
        pattern=${pattern//\$$name/${!name-}}
    done
    pattern=${pattern//[[:blank:]]/} actual=${actual//[[:blank:]]/}
    pattern=$(sed 's/[][\\*?]/\\&/g; s/…/*/g' <<<"$pattern")
    # shellcheck disable=SC2053 # it is a pattern
    [[ $actual == $pattern ]]
}

# The comparison itself is tested first.
check_matches() {
    local ID=a-b wrong
    export ID
    matches "\"\$ID\""$'\t1…*' '"a-b"   1 and more*' || die "what is the same does not match"
    for wrong in "\$ID=a-c" "a=ab" "a…=b" "a?=ab" "=a"; do
        ! matches "${wrong%%=*}" "${wrong#*=}" || die "what differs matches: $wrong"
    done
}

# walk BUILD ENDPOINT: in the directory of the socket, for the sake of relative paths.
walk() (
    local line command shown code
    cd "$WORK"
    export CSC_BUILD=$1 CSI_ENDPOINT=$2 LC_ALL=C.UTF-8 PATH=$WORK/bin:$PATH
    while IFS=$'\x1f' read -r -d $'\x1e' line command shown; do
        # The page has one form of an endpoint; this test covers all of them.
        [[ $command != "export CSI_ENDPOINT="* ]] || continue
        code=0
        eval "$command" >"$WORK/printed" 2>&1 </dev/null || code=$?
        printed=$(<"$WORK/printed")
        if [[ $code != 0 ]]; then
            die "docs/csc.md:$line: exit code $code of: $command"$'\n'"$printed"
        fi
        matches "${shown%$'\n'}" "$printed" ||
            die "docs/csc.md:$line: $command"$'\n'"the page shows:"$'\n'"$shown""but it printed:"$'\n'"$printed"
        say "  ok      $command"
    done < <(commands "$1")
)

# at BUILD ENDPOINT ADDRESS
at() {
    say "csc of $1 at $2"
    if ! env -C "$WORK" CSC_BUILD="$1" "$WORK/bin/csc" --endpoint "$2" identity plugin-info >/dev/null 2>"$WORK/stderr" &&
        grep -qE 'name resolver error|invalid target address' "$WORK/stderr"; then
        [[ $2 != unix://* ]] || die "csc could not even resolve $2: $(head -n 1 "$WORK/stderr")"
        say "  not a form of this build of csc: $(head -n 1 "$WORK/stderr")"
        return
    fi
    walk "$1" "$2" | tee -a "$WORK/walked"
}

check_matches
in_own_namespace "$@"
need_program
need_tool grpcurl
if [[ $# == 0 ]]; then
    need "$STAND_IN" "build it with: make build"
    csc=$STAND_IN builds=(rexray dell)
else
    csc=$(command -v -- "$1") || die "$1 is not a program"
    csc=$(realpath -- "$csc")
    builds=(rexray)
    # A Go program names its modules.
    if grep -qF github.com/dell/gocsi "$csc"; then builds=(dell); fi
fi
mkdir "$WORK/bin"
ln -s "$csc" "$WORK/bin/csc"
# All changes that the page makes to the machine stay in this namespace.
mount -t tmpfs flocker-csi-test /run
mount -t tmpfs flocker-csi-test "$PLACE"
mkdir "$SOCKETS"
grep -qxF "\$ export CSI_ENDPOINT=unix://$SOCKETS/csi.sock" "$PAGE" || die "the page has another endpoint"
tcp=tcp://127.0.0.1:$(free_port)
for endpoint in "unix://$SOCKETS/csi.sock" "$SOCKETS/csi.sock" csi.sock "$tcp"; do
    address=unix://$SOCKETS/csi.sock
    [[ $endpoint != csi.sock ]] || address=unix://$WORK/csi.sock
    [[ $endpoint != tcp://* ]] || address=$endpoint
    start_standalone "$endpoint" "$address" --create-on-first-use
    for build in "${builds[@]}"; do
        at "$build" "$endpoint"
    done
    stop standalone
done
passed=$(grep -c '^  ok ' "$WORK/walked")
say "$passed passed, 0 failed"
