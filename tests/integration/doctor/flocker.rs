//! Certificates, the control service and the agent.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use flocker_embedded::faults::{AgentState, Effect, RequestFault};
use flocker_embedded::pki::{Authority, Role};
use flocker_embedded::{CertificateProfile, Options};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use super::stand_ins::StandIns;
use super::{Diagnosis, EXPIRY};
use crate::node::Fixture;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::program;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};

/// Copies the plugin's files, so that a test may change them, and makes a machine use the copies.
fn with_own_files(flocker: &Flocker, machine: &mut Machine) -> PathBuf {
    let directory = flocker.path().join("plugin");
    fs::create_dir(&directory).unwrap();
    for name in ["cluster.crt", "plugin.crt", "plugin.key"] {
        fs::copy(flocker.embedded().certificates().join(name), directory.join(name)).unwrap();
    }
    let config = &mut machine.config.flocker;
    config.cluster_cert = directory.join("cluster.crt");
    config.user_cert = directory.join("plugin.crt");
    config.user_key = directory.join("plugin.key");
    directory
}

#[test]
fn a_healthy_node_has_no_fault_and_exit_status_0() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let used = fixture.published("used").await;
        fixture.flocker.reports(1, used.dataset()).await;
        let flags = fixture.machine.flags();
        let diagnosis = Diagnosis::of(&flags, &[]).await;
        diagnosis.assert_content();
        assert_eq!(diagnosis.names("skipped"), ["kubelet-directory"]);
        assert_eq!(diagnosis.document["result"], "ok");
        assert!(diagnosis.document["volume"].is_null());
        for volume in ["used", &used.volume_id] {
            let diagnosis = Diagnosis::of(&flags, &[volume]).await;
            diagnosis.assert_content();
            let found = &diagnosis.document["volume"];
            assert_eq!(
                (&found["id"], &found["name"]),
                (&used.volume_id.as_str().into(), &"used".into())
            );
            assert!(found["stuck_in"].is_null());
            diagnosis.assert_check("volume-published", "ok", &[used.target.to_str().unwrap()]);
        }
        // Nothing is left of it.
        let state = fs::read_dir(&fixture.machine.config.node.state_dir).unwrap();
        let probes = state.filter(|entry| {
            entry
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with(".tmp")
        });
        assert_eq!(probes.count(), 0);
        let controller = Diagnosis::of(&flags, &["--mode=controller"]).await;
        controller.assert_check("capabilities", "skipped", &["mode = controller"]);
        controller.assert_check("agent", "skipped", &["mode = controller"]);
    });
}

#[test]
fn a_cluster_certificate_of_another_cluster_is_replaced_by_the_right_one() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let files = with_own_files(&flocker, &mut machine);
        let fixture = Fixture::on(machine, flocker).await;
        let (flocker, flags) = (&fixture.flocker, fixture.machine.flags());
        let stand_ins = StandIns::new(flocker.path());
        let right = flocker.embedded().certificates().join("cluster.crt");
        stand_ins.add("scp", &format!("cp {} \"$2\"", right.display()));
        let other = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        fs::write(files.join("cluster.crt"), other.certificate().to_pem().unwrap()).unwrap();
        let diagnosis = Diagnosis::of(&flags, &[]).await;
        diagnosis
            .assert_code(2)
            .assert_check(
                "certificates",
                "error",
                &["plugin.crt", "not signed by the cluster certificate"],
            )
            .assert_check("tls", "skipped", &["before certificates is ok"]);
        let command = diagnosis.command("certificates");
        stand_ins.run(&command).await;
        Diagnosis::of(&flags, &[]).await.assert_content();

        // All files are those of another cluster.
        fs::write(files.join("cluster.crt"), other.certificate().to_pem().unwrap()).unwrap();
        let user = other.issue(&Role::User("plugin".to_owned())).unwrap();
        fs::write(files.join("plugin.crt"), user.certificate_pem().unwrap()).unwrap();
        fs::write(files.join("plugin.key"), user.key_pem().unwrap()).unwrap();
        let diagnosis = Diagnosis::of(&flags, &[]).await;
        diagnosis
            .assert_code(1)
            .assert_check("certificates", "ok", &[])
            .assert_check(
                "tls",
                "error",
                &["is not signed by the given cluster certificate"],
            );
        stand_ins.run(&diagnosis.command("tls")).await;
        let diagnosis = Diagnosis::of(&flags, &[]).await;
        diagnosis.assert_code(2).assert_check(
            "certificates",
            "error",
            &["not signed by the cluster certificate"],
        );
    });
}

#[test]
fn an_expired_certificate_is_replaced_by_a_new_one() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let files = with_own_files(&flocker, &mut machine);
        let fixture = Fixture::on(machine, flocker).await;
        let (flocker, flags) = (&fixture.flocker, fixture.machine.flags());
        let issue = |directory: &Path, role: &Role, days: std::ops::Range<i64>| {
            let issued = flocker.embedded().authority().issue_for(role, &days).unwrap();
            fs::write(directory.join("plugin.crt"), issued.certificate_pem().unwrap()).unwrap();
            fs::write(directory.join("plugin.key"), issued.key_pem().unwrap()).unwrap();
        };
        let user = Role::User("plugin".to_owned());
        issue(&files, &user, -9..-1);
        let expired = Diagnosis::of(&flags, &[]).await;
        expired
            .assert_code(2)
            .assert_check("certificates", "error", &["plugin.crt", "expired on"]);
        let new = flocker.path().join("new");
        fs::create_dir(&new).unwrap();
        issue(&new, &user, -1..365);
        let stand_ins = StandIns::new(flocker.path());
        let copy = format!(
            "cp {0}/plugin.crt {0}/plugin.key {1}",
            new.display(),
            files.display()
        );
        stand_ins.add("flocker-ca", &copy);
        stand_ins.run(&expired.command("certificates")).await;
        assert_eq!(stand_ins.calls(), "flocker-ca create-api-certificate plugin\n");
        Diagnosis::of(&flags, &[]).await.assert_content();

        issue(&files, &user, -9..20);
        let soon = Diagnosis::of(&flags, &[]).await;
        soon.assert_code(3)
            .assert_check("certificates", "warning", &["they end in "]);
        issue(&files, &user, 3..20);
        let early = Diagnosis::of(&flags, &[]).await;
        early
            .assert_code(2)
            .assert_check("certificates", "error", &["is not valid before"]);
        issue(&files, &Role::Node(Uuid::new_v4()), -1..365);
        let node = Diagnosis::of(&flags, &[]).await;
        node.assert_code(2)
            .assert_check("certificates", "error", &["a node's certificate"]);
    });
}

/// A control service in a process of its own.
struct ControlService {
    scratch: Scratch,
    child: Option<Child>,
    address: SocketAddr,
}

impl ControlService {
    async fn start() -> Self {
        let mut service = Self {
            scratch: Scratch::new(),
            child: None,
            address: ([127, 0, 0, 1], 0).into(),
        };
        service.run().await;
        service
    }

    /// Starts it at its address.
    async fn run(&mut self) {
        let (listen, data) = (format!("--listen={}", self.address), self.data());
        let data = format!("--data-dir={}", data.display());
        let mut command: Command = program(&["embedded", &listen, &data]);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        self.address = line
            .strip_prefix("listening on https://")
            .unwrap()
            .parse()
            .unwrap();
        self.child = Some(child);
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().unwrap().id().unwrap();
        kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
    }

    async fn stop(&mut self) {
        self.child.take().unwrap().kill().await.unwrap();
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.data().join("certificates").join(name).display().to_string();
        let scratch = self.scratch.path().display();
        let mount_root = self.data().join("flocker/node-1");
        vec![
            format!("--control-service=https://{}", self.address),
            format!("--cluster-cert={}", path("cluster.crt")),
            format!("--user-cert={}", path("plugin.crt")),
            format!("--user-key={}", path("plugin.key")),
            format!("--node-id-file={}", path("node-1.id")),
            format!("--mount-root={}", mount_root.display()),
            format!("--state-dir={scratch}/state"),
            format!("--device-dir={scratch}/devices"),
            format!("--endpoint={scratch}/csi.sock"),
            "--accept-unverified-propagation=true".to_owned(),
        ]
    }
}

/// Asserts that there is no fault beside the plugin, which does not run in these tests.
#[track_caller]
fn assert_only_the_plugin_is_missing(diagnosis: &Diagnosis) {
    diagnosis.assert_code(3);
    assert_eq!(diagnosis.names("warning"), ["endpoint"]);
    diagnosis.assert_check("endpoint", "warning", &["csi.sock"]);
}

#[test]
fn a_control_service_that_is_stopped_is_told_from_one_that_hangs() {
    in_own_namespace(|| async {
        let mut service = ControlService::start().await;
        let flags = service.flags();
        let stand_ins = StandIns::new(service.scratch.path());
        assert_only_the_plugin_is_missing(&Diagnosis::of(&flags, &[]).await);

        service.stop().await;
        let stopped = Diagnosis::of(&flags, &[]).await;
        stopped
            .assert_code(1)
            .assert_check("tcp", "error", &["nothing listens at the port", "is stopped"])
            .assert_check("control-service", "skipped", &["before tls is ok"]);
        stand_ins.run(&stopped.command("tcp")).await;
        assert!(stand_ins.calls().ends_with("systemctl start flocker-control\n"));
        service.run().await;
        assert_only_the_plugin_is_missing(&Diagnosis::of(&flags, &[]).await);

        service.signal(Signal::STOP);
        let hangs = Diagnosis::of(&flags, &[]).await;
        hangs
            .assert_code(1)
            .assert_check("tcp", "ok", &["accepts connections"])
            .assert_check("tls", "error", &["the control service hangs"]);
        stand_ins.run(&hangs.command("tls")).await;
        assert!(stand_ins.calls().ends_with("systemctl restart flocker-control\n"));
        service.stop().await;
        service.run().await;
        assert_only_the_plugin_is_missing(&Diagnosis::of(&flags, &[]).await);

        let unknown = Diagnosis::of(&flags, &["--control-service=https://flocker.invalid"]).await;
        unknown
            .assert_code(1)
            .assert_check("name-resolution", "error", &["flocker.invalid"])
            .assert_check("tcp", "skipped", &[]);
    });
}

/// A Flocker with nodes that are no longer listed soon after their last report, of which the first is this machine.
pub(super) async fn with_quick_expiry(nodes: usize) -> Fixture {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let flocker = Flocker::with(|options| Options {
        nodes,
        node_expiry: Some(EXPIRY),
        eras: [(1, boot_id.trim().parse().unwrap())].into(),
        ..options
    })
    .await;
    Fixture::on(Machine::new(&flocker, 1), flocker).await
}

/// Starts or stops the agent of a node, and waits until Flocker lists it or no longer does.
pub(super) async fn set_agent(flocker: &Flocker, number: usize, agent: AgentState) {
    let faults = flocker.embedded().faults();
    faults.change(|plan| plan.nodes.entry(number).or_default().agent = agent);
    let (client, node) = (flocker.client().await, flocker.node(number));
    eventually("the list of nodes follows the agent", async || {
        let nodes = client.list_nodes().await.unwrap();
        let is_listed = nodes.into_iter().any(|listed| listed.uuid == node);
        (is_listed == (agent == AgentState::Running)).then_some(())
    })
    .await;
}

#[test]
fn an_agent_that_is_dead_is_named_with_its_node() {
    in_own_namespace(|| async {
        let fixture = with_quick_expiry(2).await;
        let (flocker, flags) = (&fixture.flocker, fixture.machine.flags());
        let stand_ins = StandIns::new(flocker.path());
        Diagnosis::of(&flags, &[]).await.assert_content();
        set_agent(flocker, 1, AgentState::Stopped).await;
        let dead = Diagnosis::of(&flags, &[]).await;
        dead.assert_code(1).assert_check(
            "agent",
            "error",
            &[&fixture.machine.node().to_string(), "has not reported"],
        );
        stand_ins.run(&dead.command("agent")).await;
        assert_eq!(stand_ins.calls(), "systemctl restart flocker-dataset-agent\n");
        set_agent(flocker, 1, AgentState::Running).await;
        Diagnosis::of(&flags, &[]).await.assert_content();
    });
}

#[test]
fn a_node_id_of_another_machine_is_corrected() {
    in_own_namespace(|| async {
        let fixture = with_quick_expiry(2).await;
        let flocker = &fixture.flocker;
        let stand_ins = StandIns::new(flocker.path());
        let file = flocker.path().join("node-id");
        fs::write(&file, flocker.node(2).to_string()).unwrap();
        let mut flags = fixture.machine.flags();
        flags.retain(|flag| !flag.starts_with("--node-id"));
        flags.push(format!("--node-id-file={}", file.display()));
        let (own, other) = (flocker.node(1).to_string(), flocker.node(2).to_string());
        let wrong = Diagnosis::of(&flags, &[]).await;
        wrong.assert_code(1).assert_check(
            "node-identity",
            "error",
            &[&own, &other, "another machine's", "127.0.0.2"],
        );
        stand_ins.run(&wrong.command("node-identity")).await;
        Diagnosis::of(&flags, &[]).await.assert_content();
        let setting = Diagnosis::of(&fixture.machine.flags(), &[&format!("--node-id={other}")]).await;
        setting
            .assert_code(1)
            .assert_check("node-identity", "error", &["the setting node_id", &own]);
        let next = setting.check("node-identity")["next"].as_str().unwrap();
        assert!(next.starts_with(&format!("set node_id to {own}")), "{next}");
        Diagnosis::of(&fixture.machine.flags(), &[&format!("--node-id={own}")])
            .await
            .assert_content();
    });
}

#[test]
fn a_control_service_that_answers_only_some_requests_is_found() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let flags = fixture.machine.flags();
        let faults = fixture.flocker.embedded().faults();
        for (route, words) in [
            ("/v1/version", "within 8s"),
            ("/v1/state/nodes", "cannot read the state of the cluster"),
        ] {
            faults.add(RequestFault::new("held", Effect::HoldRequest).on("GET", route));
            let held = Diagnosis::of(&flags, &[]).await;
            held.assert_code(1)
                .assert_check("control-service", "error", &[words]);
            assert!(
                held.command("control-service")
                    .ends_with("systemctl restart flocker-control")
            );
            faults.clear();
        }
        let broken = Effect::Answer {
            status: 500,
            body: "{}".to_owned(),
        };
        faults.add(RequestFault::new("broken", broken).on("GET", "/v1/version"));
        let failed = Diagnosis::of(&flags, &[]).await;
        failed
            .assert_code(1)
            .assert_check("control-service", "error", &["status 500"]);
        assert!(
            failed
                .command("control-service")
                .contains("journalctl -u flocker-control")
        );
        faults.clear();
        Diagnosis::of(&flags, &[]).await.assert_content();
    });
}
