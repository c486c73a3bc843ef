//! Paths and addresses that another process uses.

use std::net::TcpListener;

use super::{assert_ends, with};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_second_process_on_a_data_directory_names_the_first() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let data_dir = flocker.path().join("data").display().to_string();
        let flag = format!("--data-dir={data_dir}");
        let holder = std::process::id().to_string();
        let endpoint = format!("--endpoint=unix://{}/csi.sock", flocker.path().display());
        assert_ends(
            &["embedded", "--listen=127.0.0.1:0", &flag],
            1,
            &[&data_dir, "in use", &holder],
        )
        .await;
        assert_ends(
            &["standalone", &flag, &endpoint],
            1,
            &[&data_dir, "in use", &holder],
        )
        .await;
    });
}

#[test]
fn an_address_or_socket_in_use_is_named() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let port = address.port().to_string();
        let data_dir = format!("--data-dir={}", flocker.path().join("other").display());
        let listen = format!("--listen={address}");
        assert_ends(&["embedded", &listen, &data_dir], 1, &[&port, "in use"]).await;

        let machine = Machine::new(&flocker, 1);
        let flags = machine.flags();
        let endpoint = format!("--endpoint=tcp://{address}");
        let allowed = "--allow-unauthenticated-tcp";
        assert_ends(&with(&flags, &[&endpoint, allowed]), 1, &[&port, "in use"]).await;

        let plugin = machine.process(&[]).await;
        let socket = machine.path("csi.sock").display().to_string();
        assert_ends(&with(&flags, &[]), 1, &[&socket, "in use"]).await;
        plugin.csi.create("it still serves").await;
        plugin.kill().await;
        let plugin = machine.process(&[]).await;
        plugin.csi.create("after a socket without a server").await;
        plugin.kill().await;
    });
}
