//! Clients that open more than they mean to use. Memory stays bounded and is returned, and other clients are served.

use std::path::Path;

use csi_proto::v1::ProbeRequest;

use crate::http2::{
    Attacker, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, announced, frame, headers,
};
use crate::memory::Watched;
use crate::memory_group::MemoryGroup;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program_under};

/// The address space of the plugin.
const GIBIBYTE: &str = "--as=1073741824";
/// The memory of the plugin, as a container limits it.
const GROUP_MIB: u64 = 160;
const CREATE: &str = "/csi.v1.Controller/CreateVolume";
const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Starts the plugin in a process with little address space.
async fn start(machine: &Machine, more: &[&str]) -> Process {
    let flags = machine.flags();
    let arguments: Vec<_> = ["serve"]
        .into_iter()
        .chain(flags.iter().map(String::as_str))
        .chain(more.iter().copied())
        .collect();
    let program = program_under(&["prlimit", GIBIBYTE, "--"], &arguments);
    let process = Process::attempt(program, &machine.path("plugin.log")).await;
    process.unwrap_or_else(|said| panic!("{said}"))
}

/// Calls the plugin, which has to answer.
async fn probe(plugin: &Process) {
    plugin.csi.identity().probe(ProbeRequest {}).await.unwrap();
}

/// Opens streams with a header block and a piece of data each, until the server closes the connection.
async fn open(socket: &Path, streams: u32, method: &str, flags: u8, data: &[u8]) -> Attacker {
    let mut attacker = Attacker::connect(socket).await;
    let block = headers(method);
    for stream in (1..).step_by(2).take(streams as usize) {
        if !attacker.send(&frame(HEADERS, END_HEADERS, stream, &block)).await
            || !attacker.send_data(stream, flags, data).await
        {
            break;
        }
    }
    attacker
}

#[test]
fn twenty_thousand_streams_that_announce_messages_and_send_none_cost_little() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let group = MemoryGroup::of_mib(GROUP_MIB);
        let plugin = start(&machine, &[]).await;
        group.add(plugin.id());
        plugin.csi.create("before").await;
        let memory = Watched::begin(plugin.id());
        let socket = machine.path("csi.sock");
        // More than are accepted, as many as are, and the largest message that is.
        for (connections, streams, length) in [(1, 20_000, 4 << 20), (20, 1000, 4 << 20), (20, 1000, 1 << 20)]
        {
            let mut attackers = Vec::new();
            for _ in 0..connections {
                attackers.push(open(&socket, streams, CREATE, 0, &announced(length, b"ten bytes.")).await);
                probe(&plugin).await;
            }
            memory.assert_peak(100);
            for attacker in attackers {
                attacker.leave().await;
            }
        }
        plugin.csi.create("after").await;
        memory.returns().await;
        group.assert_none_killed();
        plugin.terminate().await;
    });
}

#[test]
fn large_messages_that_do_not_end_share_a_budget() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let group = MemoryGroup::of_mib(GROUP_MIB);
        let plugin = start(&machine, &[]).await;
        group.add(plugin.id());
        plugin.csi.create("before").await;
        let memory = Watched::begin(plugin.id());
        let socket = machine.path("csi.sock");
        let mut attackers = Vec::new();
        for _ in 0..4 {
            let data = announced(1 << 20, &[0x1a; 16_000]);
            attackers.push(open(&socket, 400, CREATE, 0, &data).await);
        }
        probe(&plugin).await;
        memory.assert_peak(100);
        for attacker in attackers {
            attacker.leave().await;
        }
        memory.returns().await;
        group.assert_none_killed();
        plugin.terminate().await;
    });
}

#[test]
fn a_message_of_the_largest_size_that_decodes_to_much_more_is_answered() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = start(&machine, &[]).await;
        let memory = Watched::begin(plugin.id());
        let socket = machine.path("csi.sock");
        // Empty capabilities: two bytes each, and forty times that when decoded.
        let message = [0x1a, 0x00].repeat((1 << 19) - 1);
        let data = announced(u32::try_from(message.len()).unwrap(), &message);
        let mut attackers = Vec::new();
        for _ in 0..8 {
            let mut attacker = Attacker::connect(&socket).await;
            attacker
                .send(&frame(HEADERS, END_HEADERS, 1, &headers(CREATE)))
                .await;
            let pieces: Vec<_> = data.chunks(16 << 10).collect();
            for (number, piece) in pieces.iter().enumerate() {
                let flags = if number + 1 == pieces.len() { END_STREAM } else { 0 };
                assert!(attacker.send_data(1, flags, piece).await);
            }
            attackers.push(attacker);
        }
        probe(&plugin).await;
        memory.assert_peak(512);
        for attacker in attackers {
            attacker.leave().await;
        }
        memory.returns().await;
        plugin.terminate().await;
    });
}

#[test]
fn calls_that_never_end_are_refused_above_the_limit_and_their_memory_is_returned() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = start(&machine, &["--max-calls=1000"]).await;
        plugin.csi.create("before").await;
        let memory = Watched::begin(plugin.id());
        let socket = machine.path("csi.sock");
        let one = open(&socket, 5000, WATCH, END_STREAM, &announced(0, b"")).await;
        // One connection has half of the calls.
        probe(&plugin).await;
        let other = open(&socket, 400, WATCH, END_STREAM, &announced(0, b"")).await;
        probe(&plugin).await;
        memory.assert_peak(100);
        other.leave().await;
        one.leave().await;
        memory.returns().await;
        plugin.terminate().await;
    });
}

#[test]
fn streams_that_are_reset_as_fast_as_they_open_end_the_connection() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = start(&machine, &[]).await;
        let memory = Watched::begin(plugin.id());
        let mut attacker = Attacker::connect(&machine.path("csi.sock")).await;
        let block = headers(CREATE);
        for stream in (1..200_001_u32).step_by(2) {
            let opened = [
                frame(HEADERS, END_HEADERS, stream, &block),
                frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
            ];
            if !attacker.send(&opened.concat()).await {
                break;
            }
        }
        probe(&plugin).await;
        memory.assert_peak(32);
        assert!(attacker.closed().await.goaway);
        memory.returns().await;
        plugin.terminate().await;
    });
}

#[test]
fn a_header_without_an_end_is_refused() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = start(&machine, &[]).await;
        let memory = Watched::begin(plugin.id());
        let mut attacker = Attacker::connect(&machine.path("csi.sock")).await;
        attacker.send(&frame(HEADERS, 0, 1, &headers(CREATE))).await;
        let mut field = vec![0x10, 1, b'x', 0x7f, 0x81, 0x3e];
        field.resize(6 + 8192, b'x');
        for _ in 0..4096 {
            if !attacker.send(&frame(CONTINUATION, 0, 1, &field)).await {
                break;
            }
        }
        probe(&plugin).await;
        memory.assert_peak(32);
        attacker.closed().await;
        memory.returns().await;
        plugin.terminate().await;
    });
}
