//! The registration of the plugin with the kubelet of its node.

use std::fs;
use std::os::unix::net::UnixListener;

use super::{is_socket, scene};
use crate::inputs::{assert_ends, with};
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

#[test]
fn a_kubelet_learns_what_the_plugin_is_and_which_node_this_is() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.finds_plugin().await;
        let info = kubelet.asks().await;
        assert_eq!(info.r#type, "CSIPlugin");
        assert_eq!(info.name, "flocker.csi.clusterhq.com");
        assert_eq!(info.endpoint, machine.path("csi.sock").display().to_string());
        assert_eq!(info.supported_versions, ["1.0.0"]);
        assert_eq!(kubelet.registers().await, machine.node().to_string());
        logs(&plugin, "The kubelet has registered flocker.csi.clusterhq.com").await;
        assert!(!plugin.log().contains("ERROR"), "{}", plugin.log());
        plugin.kill().await;
    });
}

#[test]
fn a_kubelet_that_sees_the_socket_elsewhere_gets_that_path() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let elsewhere = "--kubelet-endpoint=unix:///var/lib/kubelet/plugins/flocker/csi.sock";
        let plugin = machine
            .process(&[&kubelet.flag(), elsewhere, "--mode=node"])
            .await;
        kubelet.finds_plugin().await;
        assert_eq!(
            kubelet.asks().await.endpoint,
            "/var/lib/kubelet/plugins/flocker/csi.sock"
        );
        plugin.kill().await;
    });
}

#[test]
fn a_refused_registration_is_an_error_with_the_kubelets_reason() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.finds_plugin().await;
        kubelet.asks().await;
        kubelet.says(false, "dial unix /x/csi.sock:\nno such file").await;
        logs(&plugin, "ERROR").await;
        for part in [
            "dial unix /x/csi.sock: no such file",
            "kubelet_endpoint",
            "tries again",
        ] {
            plugin.logged(part).await;
        }
        // As the kubelet does: again, until it succeeds.
        kubelet.registers().await;
        logs(&plugin, "The kubelet has registered").await;
        plugin.kill().await;
    });
}

#[test]
fn a_node_with_the_label_of_another_flocker_node_is_refused_with_the_label_to_remove() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[&kubelet.flag(), "--topology=hint"]).await;
        kubelet.finds_plugin().await;
        kubelet.asks().await;
        // In the words of kubelet 1.37.2.
        let reason = "RegisterPlugin error -- plugin registration failed with err: error updating Node object with CSI \
                      driver node info: detected topology value collision: driver reported \
                      \"flocker.csi.clusterhq.com/node\":\"a\" but existing label is \"flocker.csi.clusterhq.com/node\":\"b\"";
        kubelet.says(false, reason).await;
        for part in ["existing label is", "kubectl label node NODE KEY-", "tries again"] {
            plugin.logged(part).await;
        }
        assert_eq!(kubelet.registers().await, machine.node().to_string());
        plugin.kill().await;
    });
}

#[test]
fn a_graceful_stop_takes_the_socket_away_and_the_next_process_makes_it_again() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.registers().await;
        plugin.terminate().await;
        assert!(!kubelet.socket().exists());
        assert!(!machine.path("csi.sock").exists());
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.registers().await;
        plugin.kill().await;
    });
}

#[test]
fn a_socket_that_a_killed_process_has_left_is_replaced() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.registers().await;
        plugin.kill().await;
        assert!(is_socket(&kubelet.socket()));
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.registers().await;
        plugin.kill().await;
    });
}

#[test]
fn a_socket_on_which_another_process_answers_is_left_to_it() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let _other = UnixListener::bind(kubelet.socket()).unwrap();
        let flags = machine.flags();
        let socket = kubelet.socket().display().to_string();
        let parts = [
            &*socket,
            "register the plugin with the kubelet",
            "a process listens on it",
        ];
        assert_ends(&with(&flags, &[&kubelet.flag()]), 1, &parts).await;
        assert!(is_socket(&kubelet.socket()));
        assert!(!machine.path("csi.sock").exists(), "nothing is served then");
    });
}

#[test]
fn a_removed_socket_is_recreated_once_its_directory_exists() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[&kubelet.flag()]).await;
        kubelet.registers().await;

        fs::remove_file(kubelet.socket()).unwrap();
        kubelet.registers().await;

        fs::remove_dir_all(&kubelet.registry).unwrap();
        logs(&plugin, "its directory is missing").await;
        assert!(
            !kubelet.registry.exists(),
            "the directory is the kubelet's to make"
        );
        fs::create_dir(&kubelet.registry).unwrap();
        kubelet.registers().await;
        plugin.csi.create("all the while it serves").await;
        plugin.terminate().await;
        assert!(!kubelet.socket().exists());
    });
}

#[test]
fn the_socket_exists_only_while_the_plugin_serves() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let served = machine.path("csi.sock");
        let watching = async {
            eventually("the plugin shows itself", async || {
                is_socket(&kubelet.socket()).then_some(())
            })
            .await;
            // No step waits for anything between the two.
            tokio::net::UnixStream::connect(&served).await.unwrap();
        };
        let flag = kubelet.flag();
        let flags = [&*flag];
        let (plugin, ()) = tokio::join!(machine.process(&flags), watching);
        plugin.kill().await;
    });
}

#[test]
fn a_plugin_that_serves_no_node_registers_with_no_kubelet() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let flags = machine.flags();
        let parts = ["kubelet_registration_dir", "set mode to node or all"];
        assert_ends(&with(&flags, &[&kubelet.flag(), "--mode=controller"]), 2, &parts).await;
        assert_ends(
            &with(&flags, &[&kubelet.flag(), "--mode=controller", "--check-config"]),
            2,
            &parts,
        )
        .await;
    });
}

async fn logs(plugin: &Process, words: &str) {
    eventually(&format!("{words:?} is logged"), async || {
        plugin.log().contains(words).then_some(())
    })
    .await;
}
