#!/usr/bin/env bash
# Walks through the life of a volume with a real csc, rexray's or dell's, in each form in which that build can write an
# endpoint. Both have the same syntax; dell's cannot resolve every form, and says so before it has dialed.
#
# usage: walkthrough.sh CSC
. "$(dirname -- "$0")/lib.sh"

readonly SIZE=67108864
readonly CAPABILITY=SINGLE_NODE_WRITER,mount,ext4
readonly ALREADY_EXISTS=6 # csc exits with the gRPC status code

passed=0

# csc ARGUMENT...: in the directory of the socket, for the sake of relative paths.
csc() { env -C "$WORK" "$CSC" --endpoint "$endpoint" "$@"; }

# step NAME COMMAND...: one line for it; its output is kept in $output.
step() {
    local name=$1 code=0
    shift
    output=$("$@" 2>"$WORK/stderr") || code=$?
    if [[ $code != 0 ]]; then
        say "  FAILED  $name: exit code $code: $(head -n 1 "$WORK/stderr")"
        say "$passed passed, 1 failed"
        exit 1
    fi
    say "  ok      $name  ${output//$'\n'/, }"
    passed=$((passed + 1))
}

# expect PATTERN: what the step before printed matches it.
expect() {
    [[ $output =~ $1 ]] || die "want output matching $1, got: $output"
}

# refused CODE COMMAND...: COMMAND exits with CODE.
refused() {
    local want=$1 code=0
    shift
    "$@" || code=$?
    [[ $code == "$want" ]] || {
        say "want exit code $want, got $code" >&2
        return 1
    }
}

write_and_read_back() {
    mountpoint --quiet "$WORK/target" || {
        say "$WORK/target is not a mount: what is written there is lost" >&2
        return 1
    }
    printf 'written through the published volume\n' >"$WORK/target/file"
    grep -x 'written through the published volume' "$WORK/target/file"
}

gone() { [[ ! -e $1 ]]; }

walk() {
    local node context id name
    name=walk-through-$(date +%s%N)
    step plugin-info csc identity plugin-info
    step plugin-capabilities csc identity plugin-capabilities
    expect CONTROLLER_SERVICE
    step probe csc identity probe
    expect true
    step "controller capabilities" csc controller get-capabilities
    expect CREATE_DELETE_VOLUME
    step "node capabilities" csc node get-capabilities
    expect STAGE_UNSTAGE_VOLUME
    step "node info" csc node get-info
    node=$(awk '{ gsub(/"/, "", $1); print $1; exit }' <<<"$output")
    step capacity csc controller get-capacity
    expect '^[0-9]+'
    local create=(csc controller create-volume "$name" --cap "$CAPABILITY")
    step create "${create[@]}" --req-bytes "$SIZE" --lim-bytes "$SIZE"
    expect "^\"[0-9a-f-]{36}\"[[:space:]]$SIZE"
    id=$(cut -d '"' -f 2 <<<"$output")
    step "create again" "${create[@]}" --req-bytes "$SIZE" --lim-bytes "$SIZE"
    expect "$id"
    step "create with another size" refused "$ALREADY_EXISTS" "${create[@]}" --req-bytes "$((2 * SIZE))"
    step list csc controller list-volumes
    expect "$id"
    step "list in pages" csc controller list-volumes --max-entries 1 --paging
    expect "$id"
    step validate csc controller validate-volume-capabilities "$id" --cap "$CAPABILITY"
    expect volume_capabilities
    step "controller publish" csc controller publish "$id" --node-id "$node" --cap "$CAPABILITY"
    # "key"="value", which --pub-context takes without the quotes.
    context=$(cut -f 2 <<<"$output" | tr -d '"')
    mkdir "$WORK/staging"
    step stage csc node stage "$id" --staging-target-path "$WORK/staging" --cap "$CAPABILITY" --pub-context "$context"
    step publish csc node publish "$id" --staging-target-path "$WORK/staging" --target-path "$WORK/target" \
        --cap "$CAPABILITY" --pub-context "$context"
    step "write and read back" write_and_read_back
    step stats csc node stats "$id:$WORK/target:$WORK/staging"
    expect BYTES
    step unpublish csc node unpublish "$id" --target-path "$WORK/target"
    step "the target path is gone" gone "$WORK/target"
    step unstage csc node unstage "$id" --staging-target-path "$WORK/staging"
    step "the staging path is empty" rmdir "$WORK/staging"
    step "controller unpublish" csc controller unpublish "$id" --node-id "$node"
    step delete csc controller delete-volume "$id"
    step "delete again" csc controller delete-volume "$id"
}

CSC=$(command -v -- "${1:?usage: walkthrough.sh CSC}") || die "$1 is not a program"
CSC=$(realpath -- "$CSC")
in_own_namespace "$@"
need_program
need_tool grpcurl
tcp=tcp://127.0.0.1:$(free_port)
for endpoint in "unix://$WORK/csi.sock" "$WORK/csi.sock" csi.sock "$tcp"; do
    address=unix://$WORK/csi.sock
    [[ $endpoint != tcp://* ]] || address=$endpoint
    start_standalone "$endpoint" "$address"
    say "csc at $endpoint"
    if ! csc identity plugin-info >/dev/null 2>"$WORK/stderr" &&
        grep -qE 'name resolver error|invalid target address' "$WORK/stderr"; then
        [[ $endpoint != unix://* ]] || die "csc could not even resolve $endpoint: $(head -n 1 "$WORK/stderr")"
        say "  not a form of this build of csc: $(head -n 1 "$WORK/stderr")"
    else
        walk
    fi
    stop standalone
done
say "$passed passed, 0 failed"
