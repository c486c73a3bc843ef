//! The answers to probes over HTTP.

use std::net::{SocketAddr, TcpListener};

use csi_proto::v1::ListVolumesRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::scene;
use crate::inputs::{assert_ends, with};
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;
use crate::support::{PATIENCE, eventually};

pub(crate) const PROBES: &str = "--metrics-address=[127.0.0.1]:0";

#[test]
fn the_plugin_is_ready_when_it_serves_and_flocker_answers() {
    in_own_namespace(|| async {
        let (flocker, machine, _kubelet) = scene().await;
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        assert_eq!(get(probes, "/healthz").await, (200, "ok\n".to_owned()));
        becomes(probes, 200, "ready\n").await;

        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        // Without a call it is noticed some seconds later.
        let list = plugin
            .csi
            .controller()
            .list_volumes(ListVolumesRequest::default())
            .await;
        list.unwrap_err();
        becomes(probes, 503, "Flocker").await;
        let (_, checks) = get(probes, "/readyz").await;
        assert!(checks.starts_with("not ready\n"), "{checks}");
        let failed = checks.lines().filter(|line| !line.starts_with("ok "));
        assert_eq!(failed.skip(1).count(), 1, "{checks:?}");
        assert_eq!(
            get(probes, "/healthz").await.0,
            200,
            "which a restart would not help"
        );

        faults.clear();
        faults.until_in_force().await;
        becomes(probes, 200, "ready\n").await;
        plugin.kill().await;
    });
}

#[test]
fn a_plugin_is_not_ready_before_flocker_has_answered_for_the_first_time() {
    in_own_namespace(|| async {
        let (_flocker, mut machine, _kubelet) = scene().await;
        // Accepts connections and sends nothing.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address_of_silent = silent.local_addr().unwrap();
        machine.config.flocker.control_service = format!("https://{address_of_silent}").parse().unwrap();
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        let (status, body) = get(probes, "/readyz").await;
        assert!(
            body.contains("\nfailed  flocker: Flocker has not answered yet"),
            "{body}"
        );
        assert_eq!(status, 503);
        assert_eq!(get(probes, "/healthz").await.0, 200);
        plugin.kill().await;
    });
}

#[test]
fn a_plugin_that_registers_is_ready_only_while_the_kubelet_has_it_registered() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[PROBES, &kubelet.flag()]).await;
        let probes = address(&plugin).await;
        becomes(probes, 503, "the kubelet has not registered the plugin").await;
        kubelet.says(false, "no such\nfile").await;
        becomes(
            probes,
            503,
            "\nfailed  kubelet: the kubelet has refused to register the plugin: no such file\n",
        )
        .await;
        kubelet.registers().await;
        becomes(probes, 200, "ready\n").await;
        // As after a restart of the kubelet that now refuses.
        kubelet.says(false, "no such file").await;
        becomes(probes, 503, "has refused").await;
        kubelet.says(true, "").await;
        becomes(probes, 200, "ready\n").await;

        std::fs::remove_file(kubelet.socket()).unwrap();
        becomes(probes, 503, "the kubelet has not registered the plugin").await;
        assert_eq!(get(probes, "/healthz").await.0, 200);
        kubelet.registers().await;
        becomes(probes, 200, "ready\n").await;
        plugin.kill().await;
    });
}

#[test]
fn nothing_but_probes_and_metrics_is_answered() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        for path in ["/", "/metrics/", "/healthz/", "/readyz/x", "/%2e%2e/etc/passwd"] {
            assert_eq!(get(probes, path).await.0, 404, "{path}");
        }
        assert_eq!(get(probes, "/healthz?verbose").await.0, 200);
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = say(probes, &format!("{method} /healthz HTTP/1.1\r\nhost: x\r\n\r\n")).await;
            assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
            assert!(answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
        }
        let head = say(probes, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        let long = format!("GET /healthz HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000));
        assert!(say(probes, &long).await.starts_with("HTTP/1.1 431 "));
        assert_eq!(get(probes, "/healthz").await.0, 200);
        plugin.kill().await;
    });
}

#[test]
fn clients_that_say_nothing_or_little_keep_no_probe_from_its_answer() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        let mut burdens = Vec::new();
        for number in 0..200 {
            let mut burden = TcpStream::connect(probes).await.unwrap();
            if number % 2 == 0 {
                burden.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
            }
            burdens.push(burden);
        }
        for _ in 0..20 {
            assert_eq!(get(probes, "/healthz").await.0, 200);
        }
        let open = std::fs::read_dir(format!("/proc/{}/fd", plugin.id()))
            .unwrap()
            .count();
        assert!(open < 100, "{open} descriptors are open");
        let mut oldest = burdens.remove(0);
        let mut rest = Vec::new();
        let closed = timeout(PATIENCE, oldest.read_to_end(&mut rest)).await;
        closed
            .expect("the one that has been there longest has made room")
            .ok();
        // The newest one has done no harm yet, and is closed only by its timeout.
        let mut newest = burdens.pop().unwrap();
        let closed = timeout(PATIENCE, newest.read_to_end(&mut rest)).await;
        closed.expect("its time is over").ok();
        plugin.kill().await;
    });
}

#[test]
fn an_unavailable_address_for_probes_is_a_configuration_error() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        let flags = machine.flags();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let in_use = format!("--metrics-address={address}");
        assert_ends(
            &with(&flags, &[&in_use]),
            2,
            &[&*address, "metrics_address", "another process listens there"],
        )
        .await;
        // An address that is reserved for documentation.
        assert_ends(
            &with(&flags, &["--metrics-address=192.0.2.7:9808"]),
            2,
            &[
                "192.0.2.7:9808",
                "no network interface of this machine has that address",
            ],
        )
        .await;
        assert_ends(
            &with(&flags, &["--metrics-address=localhost"]),
            2,
            &["expected an IP address and a port"],
        )
        .await;
        assert!(!machine.path("csi.sock").exists());
    });
}

/// Returns the address at which the plugin answers probes.
pub(crate) async fn address(plugin: &Process) -> SocketAddr {
    let says = "Answering on http://";
    let log = plugin.logged(says).await;
    let (_, rest) = log.split_once(says).expect("it says so");
    rest.split_once('/').unwrap().0.parse().unwrap()
}

/// Waits until the readiness has this status and these words.
pub(crate) async fn becomes(probes: SocketAddr, status: u16, words: &str) {
    eventually(&format!("/readyz is {status}, {words:?}"), async || {
        let (code, body) = get(probes, "/readyz").await;
        (code == status && body.contains(words)).then_some(())
    })
    .await;
}

pub(crate) async fn get(probes: SocketAddr, path: &str) -> (u16, String) {
    let answer = say(probes, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// Sends bytes on a connection of its own, and returns everything that is received until its end.
pub(crate) async fn say(probes: SocketAddr, request: &str) -> String {
    let answer = async {
        let mut stream = TcpStream::connect(probes).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // An unread part of a request resets the connection after its answer.
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8(answer).unwrap()
    };
    timeout(PATIENCE, answer).await.expect("it is answered in time")
}
