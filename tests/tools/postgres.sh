#!/usr/bin/env bash
# A real PostgreSQL on a volume of a standalone plugin: under load the plugin is killed, then the database; both are started
# again, the database recovers, and its own programs look for damage. In the end the machine is started again, as far as a
# test can: everything is unmounted, and the boot id is another one.
#
# usage: postgres.sh [ROUNDS [SECONDS]]
. "$(dirname -- "$0")/lib.sh"

readonly ROUNDS=${1:-1} LOAD=${2:-10}
readonly BOOT_ID=/proc/sys/kernel/random/boot_id
# Room for the tables, and twice for the log of changes.
readonly SIZE=536870912
passed=0

ok() {
    say "  ok      $1"
    passed=$((passed + 1))
}

call() { "$TOOLS/bin/grpcurl" -plaintext -max-time 55 -unix -d "$2" "$WORK/csi.sock" "csi.v1.$1"; }
field() { sed -n "s/.*\"$1\": \"\\(.*\\)\".*/\\1/p"; }

# postgres PROGRAM ARGUMENT...: as a user who is not root, which the database insists on.
postgres() {
    local program=$1
    shift
    env LD_LIBRARY_PATH="$libraries" PGHOST="$WORK/run" PGUSER=tester PGDATABASE=postgres PGDATA="$WORK/target/data" LC_ALL=C \
        setpriv --reuid=nobody --regid=nogroup --clear-groups -- "$TOOLS/postgresql/$program" "$@"
}

start_plugin() { start_standalone "unix://$WORK/csi.sock" "unix://$WORK/csi.sock"; }

# Both calls are repeated after a restart, as every orchestrator does it.
stage_and_publish() {
    local volume=\"volume_id\":\ \"$id\"
    call Controller/ControllerPublishVolume "{$volume, \"node_id\": \"$node\", $CAPABILITY}" >"$WORK/log/published"
    call Node/NodeStageVolume "{$volume, \"staging_target_path\": \"$WORK/staging\", $CAPABILITY}" >>"$WORK/log/published"
    call Node/NodePublishVolume "{$volume, \"staging_target_path\": \"$WORK/staging\", \"target_path\": \"$WORK/target\",
        $CAPABILITY}" >>"$WORK/log/published"
}

start_database() {
    start database env LD_LIBRARY_PATH="$libraries" LC_ALL=C setpriv --reuid=nobody --regid=nogroup --clear-groups -- \
        "$TOOLS/postgresql/postgres" -D "$WORK/target/data" -k "$WORK/run" -c listen_addresses= -c fsync=on
    wait_for database "it answers" postgres pg_isready
}

# kill_process NAME: as a crash, and waits for its end.
kill_process() {
    kill -KILL "${PIDS[$1]}"
    wait "${PIDS[$1]}" 2>/dev/null || true
    unset "PIDS[$1]"
}

# Each works in the directory of its files.
no_process_of_the_database() { ! find /proc -maxdepth 2 -name cwd -lname "$WORK/target/data*" 2>/dev/null | grep --quiet .; }

# What the database's own programs find, through the database and in its files.
check_database() {
    local sums
    postgres pg_amcheck --all --install-missing --heapallindexed >"$WORK/log/amcheck" 2>&1 || die "pg_amcheck finds damage"
    sums=$(query "select s.branches = s.accounts and s.branches = s.tellers and s.branches = s.history from (select
        (select sum(bbalance) from pgbench_branches) branches, (select sum(abalance) from pgbench_accounts) accounts,
        (select sum(tbalance) from pgbench_tellers) tellers, (select sum(delta) from pgbench_history) history) s")
    [[ $sums == t ]] || die "accounts, tellers, branches and history have different sums: a transaction is there in part"
    stop database
    postgres pg_checksums --check >"$WORK/log/checksums" 2>&1 || die "pg_checksums finds damage"
}

query() { postgres psql --no-psqlrc --tuples-only --no-align --command="$1"; }
count_transactions() { query "select count(*) from pgbench_history"; }

in_own_namespace "$@"
need_program
need_tool grpcurl
[[ -x $TOOLS/postgresql/initdb ]] || die "PostgreSQL is missing; install it with: make tools"
libraries=$(unpacked_libraries "$TOOLS/postgresql-files")
# The database's user has to reach its files.
chmod 0711 "$WORK"
mkdir "$WORK/staging" "$WORK/target" "$WORK/run"
chown nobody:nogroup "$WORK/run"
readonly CAPABILITY='"volume_capability": {"mount": {}, "access_mode": {"mode": "SINGLE_NODE_WRITER"}}'

start_plugin
node=$(call Node/NodeGetInfo '{}' | field nodeId)
id=$(call Controller/CreateVolume "{\"name\": \"database\", \"capacity_range\": {\"required_bytes\": $SIZE},
    \"volume_capabilities\": [{\"mount\": {}, \"access_mode\": {\"mode\": \"SINGLE_NODE_WRITER\"}}]}" | field volumeId)
stage_and_publish
postgres initdb --data-checksums --username=tester --auth=trust >"$WORK/log/initdb" 2>&1
start_database
postgres pgbench --initialize --scale=5 --quiet >"$WORK/log/pgbench" 2>&1
ok "$(postgres postgres --version) is initialised on the volume"

for ((round = 1; round <= ROUNDS; round++)); do
    before=$(count_transactions)
    start load env LD_LIBRARY_PATH="$libraries" PGHOST="$WORK/run" PGUSER=tester PGDATABASE=postgres LC_ALL=C \
        "$TOOLS/postgresql/pgbench" --client=4 --time=$((LOAD * 2)) --no-vacuum
    # Half of the load before the plugin dies, and most of the rest before the database does.
    until_load_is() { (($(count_transactions) > before)) && ((SECONDS >= $1)); }
    wait_until 60 until_load_is $((SECONDS + LOAD / 2)) || die "pgbench writes nothing: $(cat "$WORK/log/load")"
    kill_process standalone
    written=$(count_transactions)
    wait_until 60 until_load_is $((SECONDS + LOAD / 2)) || die "pgbench writes nothing without the plugin"
    (($(count_transactions) > written)) || die "nothing was written while the plugin was dead"
    kill_process database
    wait_until 30 ended load || die "pgbench goes on without a database"
    wait "${PIDS[load]}" 2>/dev/null || true
    unset "PIDS[load]"
    wait_until 30 no_process_of_the_database || die "processes of the killed database go on"
    start_plugin
    stage_and_publish
    start_database
    after=$(count_transactions)
    ((after >= written)) || die "$written transactions were answered, and $after are there"
    check_database
    ok "round $round: plugin and database killed under load, $((after - before)) transactions, no damage"
    start_database
done

count=$(count_transactions)
stop database
kill_process standalone
# The last one made is on top.
mounts_below "$WORK" | tac | while read -r mount; do umount -- "$mount"; done
while read -r device backing; do
    [[ $backing != "$WORK"/* ]] || losetup --detach "$device"
done < <(attached_loop_devices)
python3 -c 'import uuid; print(uuid.uuid4())' >"$WORK/boot_id"
mount --bind "$WORK/boot_id" "$BOOT_ID"
rm -rf "${WORK:?}/dev"
start_plugin
stage_and_publish
start_database
[[ $(count_transactions) == "$count" ]] || die "after a reboot there are $(count_transactions) transactions, and there were $count"
file=$(query "select pg_relation_filepath('pgbench_accounts')")
check_database
ok "after a reboot the same $count transactions are there, no damage"
printf damage | dd of="$WORK/target/data/$file" bs=1 seek=5000 conv=notrunc status=none
! postgres pg_checksums --check >"$WORK/log/damaged" 2>&1 || die "pg_checksums does not find six changed bytes"
ok "six changed bytes are found"

volume="\"volume_id\": \"$id\""
call Node/NodeUnpublishVolume "{$volume, \"target_path\": \"$WORK/target\"}" >/dev/null
call Node/NodeUnstageVolume "{$volume, \"staging_target_path\": \"$WORK/staging\"}" >/dev/null
call Controller/ControllerUnpublishVolume "{$volume, \"node_id\": \"$node\"}" >/dev/null
call Controller/DeleteVolume "{$volume}" >/dev/null
stop standalone
umount "$BOOT_ID"
say "$passed passed, 0 failed"
