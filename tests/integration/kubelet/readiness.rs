//! What the plugin says of itself in broken situations: `/readyz`, `/healthz`, the health service, and the log.

use std::fs;
use std::net::SocketAddr;

use csi_proto::v1::{ListVolumesRequest, ProbeRequest};
use flocker_csi::commands::serve::services::Part;
use flocker_csi::config::Endpoint;
use flocker_embedded::faults::{Effect, RequestFault};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::probes::{PROBES, address, becomes, get};
use super::scene;
use crate::node::unknown_id;
use crate::support::csi::Csi;
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

const MODE_NODE: &str = "--mode=node";
const MODE_CONTROLLER: &str = "--mode=controller";

/// Waits until the health service says of a part whether it serves.
pub(crate) async fn serves(plugin: &Process, part: Part, expected: bool) {
    eventually(&format!("{part:?} serves: {expected}"), async || {
        (health(plugin, part).await == expected).then_some(())
    })
    .await;
}

async fn health(plugin: &Process, part: Part) -> bool {
    let request = HealthCheckRequest {
        service: part.names()[0].to_owned(),
    };
    let answer = HealthClient::new(plugin.csi.channel()).check(request).await;
    answer.unwrap().into_inner().status() == ServingStatus::Serving
}

/// What the plugin says in a situation.
pub(crate) struct Said<'a> {
    /// The status of `/readyz`, and a part of its body.
    pub(crate) readyz: (u16, &'a str),
    pub(crate) healthz: u16,
    /// The services that are offered, and whether they serve.
    pub(crate) health: &'a [(Part, bool)],
    /// A part of the line in the log.
    pub(crate) log: &'a str,
}

impl Said<'_> {
    /// Waits until all of it is said, and prints that as a row of a table.
    pub(crate) async fn by(self, plugin: &Process, probes: SocketAddr, situation: &str) {
        let (status, words) = self.readyz;
        becomes(probes, status, words).await;
        let (_, body) = get(probes, "/readyz").await;
        for (part, expected) in self.health {
            serves(plugin, *part, *expected).await;
        }
        let log = plugin.logged(self.log).await;
        assert_eq!(get(probes, "/healthz").await.0, self.healthz, "{situation}");
        let line =
            |text: &str, words: &str| text.lines().find(|line| line.contains(words)).map(str::to_owned);
        eprintln!(
            "| {situation} | {status} `{}` | {} | {:?} | {} |",
            line(&body, words).unwrap_or_default(),
            self.healthz,
            self.health,
            line(&log, self.log).unwrap_or_default()
        );
    }
}

/// The health where only the node cannot be used.
pub(crate) const NODE_FAILS: &[(Part, bool)] = &[(Part::Controller, true), (Part::Node, false)];

fn count(log: &str, words: &str) -> usize {
    log.matches(words).count()
}

#[test]
fn a_state_dir_that_is_a_file_makes_the_node_unready_and_says_so() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        fs::write(&machine.config.node.state_dir, "").unwrap();
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        Said {
            readyz: (503, "failed  state_dir: "),
            healthz: 200,
            health: NODE_FAILS,
            log: "The check state_dir fails",
        }
        .by(&plugin, probes, "`state_dir` is a file")
        .await;
        fs::remove_file(&machine.config.node.state_dir).unwrap();
        becomes(probes, 200, "ok      state_dir: ").await;
        serves(&plugin, Part::Node, true).await;
        plugin.logged("The check state_dir holds again").await;
        plugin.kill().await;
    });
}

#[test]
fn a_state_dir_that_is_replaced_while_the_plugin_runs_makes_the_node_unready() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        becomes(probes, 200, "ok      state_dir: ").await;
        let state_dir = &machine.config.node.state_dir;
        fs::rename(state_dir, machine.path("elsewhere")).unwrap();
        becomes(probes, 503, "does not exist").await;
        fs::create_dir(state_dir).unwrap();
        Said {
            readyz: (503, "is not the directory that this process has locked"),
            healthz: 200,
            health: NODE_FAILS,
            log: "The check state_dir fails",
        }
        .by(&plugin, probes, "`state_dir` replaced")
        .await;
        fs::remove_dir(state_dir).unwrap();
        fs::rename(machine.path("elsewhere"), state_dir).unwrap();
        becomes(probes, 200, "ok      state_dir: ").await;
        plugin.kill().await;
    });
}

#[test]
fn a_node_that_flocker_does_not_list_is_unready_and_the_controller_is_not() {
    in_own_namespace(|| async {
        let (_flocker, mut machine, _kubelet) = scene().await;
        machine.config.node.node_id = Some(unknown_id());
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        Said {
            readyz: (503, "failed  node: Flocker does not list node"),
            healthz: 200,
            health: NODE_FAILS,
            log: "The check node fails",
        }
        .by(&plugin, probes, "node unknown to Flocker")
        .await;
        plugin.kill().await;
    });
}

#[test]
fn a_missing_mount_root_makes_the_node_unready() {
    in_own_namespace(|| async {
        let (_flocker, machine, _kubelet) = scene().await;
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        becomes(probes, 200, "ok      mount_root: ").await;
        let root = &machine.config.node.mount_root;
        fs::rename(root, machine.path("elsewhere")).unwrap();
        Said {
            readyz: (503, "failed  mount_root: "),
            healthz: 200,
            health: NODE_FAILS,
            log: "The check mount_root fails",
        }
        .by(&plugin, probes, "`mount_root` missing")
        .await;
        fs::rename(machine.path("elsewhere"), root).unwrap();
        becomes(probes, 200, "ok      mount_root: ").await;
        plugin.kill().await;
    });
}

#[test]
fn a_flocker_that_is_down_makes_a_controller_unready_and_a_node_only_says_so() {
    in_own_namespace(|| async {
        let (flocker, mut machine, _kubelet) = scene().await;
        let node = machine.process(&[PROBES, MODE_NODE]).await;
        machine.config.plugin.endpoint = Endpoint::Unix(machine.path("controller.sock"));
        machine.config.node.state_dir = machine.path("controller-state");
        let flags = machine.flags();
        let flags = flags.iter().map(String::as_str).chain([PROBES, MODE_CONTROLLER]);
        let log = machine.path("controller.log");
        let controller = Process::start(["serve"].into_iter().chain(flags).collect(), &log).await;
        let probes = [address(&node).await, address(&controller).await];
        for probes in probes {
            becomes(probes, 200, "ok      flocker: answered ").await;
        }

        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.control_stopped = true);
        faults.until_in_force().await;
        for _ in 0..20 {
            let listed = controller
                .csi
                .controller()
                .list_volumes(ListVolumesRequest::default())
                .await;
            listed.unwrap_err();
        }
        Said {
            readyz: (503, "failed  flocker: "),
            healthz: 200,
            health: &[(Part::Controller, false)],
            log: "Flocker does not answer",
        }
        .by(&controller, probes[1], "Flocker stopped, mode `controller`")
        .await;
        // It has no call: it finds that out by itself.
        Said {
            readyz: (200, "warning flocker: "),
            healthz: 200,
            health: &[(Part::Node, true)],
            log: "Flocker does not answer",
        }
        .by(&node, probes[0], "Flocker stopped, mode `node`")
        .await;

        faults.clear();
        faults.until_in_force().await;
        for (plugin, probes) in [&node, &controller].into_iter().zip(probes) {
            becomes(probes, 200, "ok      flocker: answered ").await;
            let log = plugin.logged("Flocker answers again").await;
            assert_eq!(count(&log, "Flocker does not answer"), 1, "{log}");
            assert_eq!(count(&log, "Flocker answers again"), 1, "{log}");
        }
        Said {
            readyz: (200, "ok      flocker: "),
            healthz: 200,
            health: &[(Part::Controller, true)],
            log: "Flocker answers again",
        }
        .by(&controller, probes[1], "Flocker back again")
        .await;
        node.kill().await;
        controller.kill().await;
    });
}

#[test]
fn a_flocker_that_hangs_is_noticed_without_a_call() {
    in_own_namespace(|| async {
        let (flocker, machine, _kubelet) = scene().await;
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        becomes(probes, 200, "ok      flocker: answered ").await;
        let faults = flocker.embedded().faults();
        faults.add(RequestFault::new("hangs", Effect::HoldRequest));
        Said {
            readyz: (503, "failed  flocker: "),
            healthz: 200,
            health: &[(Part::Controller, false), (Part::Node, true)],
            log: "it has not answered GET /v1/version for 10.0 s",
        }
        .by(&plugin, probes, "Flocker hangs, mode `all`")
        .await;
        faults.clear();
        becomes(probes, 200, "ok      flocker: answered ").await;
        plugin.logged("Flocker answers again").await;
        plugin.kill().await;
    });
}

#[test]
fn a_removed_socket_of_csi_is_recreated_and_calls_go_on() {
    in_own_namespace(|| async {
        let (_flocker, mut machine, _kubelet) = scene().await;
        let (directory, moved) = (machine.path("own"), machine.path("moved"));
        machine.config.plugin.endpoint = Endpoint::Unix(directory.join("csi.sock"));
        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        becomes(probes, 200, "ok      socket: ").await;
        let reaches = async |channel: &Csi| channel.identity().probe(ProbeRequest {}).await.map(drop);

        for removed_directory in [false, true] {
            if removed_directory {
                fs::remove_dir_all(&directory).unwrap();
            } else {
                fs::remove_file(directory.join("csi.sock")).unwrap();
            }
            eventually("the socket exists again", async || {
                super::is_socket(&directory.join("csi.sock")).then_some(())
            })
            .await;
            let new = Csi::connect(&machine.config.plugin.endpoint).await;
            reaches(&new).await.unwrap();
            reaches(&plugin.csi).await.expect("a connection survives");
        }
        let log = plugin
            .logged("it is recreated, and clients reach the plugin again")
            .await;
        assert_eq!(count(&log, "it is recreated, and clients"), 2, "{log}");
        Said {
            readyz: (200, "ok      socket: "),
            healthz: 200,
            health: &[(Part::Plugin, true), (Part::Node, true)],
            log: "it is recreated",
        }
        .by(&plugin, probes, "socket removed")
        .await;

        fs::rename(&directory, &moved).unwrap();
        fs::write(&directory, "").unwrap();
        Said {
            readyz: (503, "failed  socket: "),
            healthz: 503,
            health: &[
                (Part::Plugin, false),
                (Part::Controller, false),
                (Part::Node, false),
            ],
            log: "and it cannot be recreated",
        }
        .by(&plugin, probes, "socket cannot be recreated")
        .await;
        let (_, body) = get(probes, "/healthz").await;
        assert!(body.contains("cannot be recreated"), "{body}");
        fs::remove_file(&directory).unwrap();
        becomes(probes, 200, "ok      socket: ").await;
        assert_eq!(get(probes, "/healthz").await, (200, "ok\n".to_owned()));
        reaches(&Csi::connect(&machine.config.plugin.endpoint).await)
            .await
            .unwrap();
        let log = plugin.log();
        assert_eq!(count(&log, "and it cannot be recreated"), 1, "{log}");
        plugin.terminate().await;
        assert!(!directory.join("csi.sock").exists());
    });
}

#[test]
fn a_refused_registration_makes_the_node_unready() {
    in_own_namespace(|| async {
        let (_flocker, machine, kubelet) = scene().await;
        let plugin = machine.process(&[PROBES, &kubelet.flag()]).await;
        let probes = address(&plugin).await;
        kubelet.registers().await;
        becomes(probes, 200, "ok      kubelet: ").await;
        kubelet.says(false, "no such\nfile").await;
        Said {
            readyz: (
                503,
                "failed  kubelet: the kubelet has refused to register the plugin: no such file",
            ),
            healthz: 200,
            health: NODE_FAILS,
            log: "The kubelet has refused to register",
        }
        .by(&plugin, probes, "registration refused")
        .await;
        plugin.kill().await;
    });
}
