//! Clients that connect and do not call. They are closed, or make room; those that are only idle stay.

use std::time::Duration;

use flocker_csi::config::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use crate::http2::{Attacker, PREFACE};
use crate::memory::Watched;
use crate::support::PATIENCE;
use crate::support::csi::Csi;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// Returns once the server has closed the connection.
async fn is_closed(stream: &mut UnixStream) {
    let read = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    read.expect("the plugin closes the connection").ok();
}

#[test]
fn a_client_that_never_speaks_or_stops_in_the_middle_is_closed() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let socket = machine.path("csi.sock");
        let mut silent = UnixStream::connect(&socket).await.unwrap();
        let mut half = UnixStream::connect(&socket).await.unwrap();
        half.write_all(&PREFACE[..10]).await.unwrap();
        is_closed(&mut silent).await;
        is_closed(&mut half).await;
        plugin.csi.create("others are served").await;
        plugin.terminate().await;
    });
}

#[test]
fn connections_above_the_limit_replace_idle_ones_and_clients_that_call_are_served() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&["--max-connections=50"]).await;
        let socket = machine.path("csi.sock");
        let endpoint = Endpoint::Unix(socket.clone());
        plugin.csi.create("before").await;
        let memory = Watched::begin(plugin.id());
        let mut held = Vec::new();
        for number in 0..800 {
            if number % 2 == 0 {
                held.push((Some(UnixStream::connect(&socket).await.unwrap()), None));
            } else {
                held.push((None, Some(Attacker::connect(&socket).await)));
            }
            if number % 100 == 0 {
                Csi::connect(&endpoint)
                    .await
                    .create(&format!("during {number}"))
                    .await;
            }
        }
        // An idle client whose connection made room makes another one.
        let deadline = Instant::now() + PATIENCE;
        while plugin
            .csi
            .try_create(crate::support::csi::to_create("after"))
            .await
            .is_err()
        {
            assert!(Instant::now() < deadline);
        }
        memory.assert_peak(32);
        drop(held);
        memory.returns().await;
        plugin.terminate().await;
    });
}

#[test]
fn the_port_of_probes_answers_among_connections_that_send_nothing() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let plugin = machine.process(&[&format!("--metrics-address={port}")]).await;
        let memory = Watched::begin(plugin.id());
        let mut held = Vec::new();
        for _ in 0..500 {
            held.push(TcpStream::connect(port).await.unwrap());
        }
        let mut endless = TcpStream::connect(port).await.unwrap();
        let line = format!("x: {}\r\n", "y".repeat(1000));
        endless.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        for _ in 0..1000 {
            if endless.write_all(line.as_bytes()).await.is_err() {
                break;
            }
        }
        let mut probe = TcpStream::connect(port).await.unwrap();
        probe
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(30), probe.read_to_end(&mut answer))
            .await
            .unwrap()
            .ok();
        assert!(
            answer.starts_with(b"HTTP/1.1 200"),
            "{}",
            String::from_utf8_lossy(&answer)
        );
        memory.assert_peak(16);
        plugin.terminate().await;
    });
}
