//! `leases release`: in every combination of where the holder is, whether the lease is used here, and `--force`.

use std::process::Stdio;
use std::time::Duration;

use flocker_embedded::Options;
use flocker_embedded::faults::AgentState;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use uuid::Uuid;

use super::{Ended, arguments, end, run};
use crate::names::declare;
use crate::node::Fixture;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::program;

/// How long a silent node stays listed.
const EXPIRY: Duration = Duration::from_millis(500);
/// With it, a missing node counts as gone at once, or not during a test.
const SOON: &str = "--takeover-grace=1s";
const LATE: &str = "--takeover-grace=10m";

/// Two nodes, of which the first is this machine.
async fn fixture() -> Fixture {
    let options = |options| Options {
        nodes: 2,
        node_expiry: Some(EXPIRY),
        ..options
    };
    let flocker = Flocker::with(options).await;
    Fixture::on(Machine::new(&flocker, 1), flocker).await
}

async fn release(machine: &Machine, volume: &str, node: Uuid, more: &[&str]) -> Ended {
    let node = node.to_string();
    let given = ["leases", "release", volume, "--yes", "--node", &node];
    run(machine, &[&given, more].concat()).await
}

/// Starts or stops the agent of a node, and waits until Flocker lists it or no longer does.
async fn set_agent(flocker: &Flocker, number: usize, agent: AgentState) {
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

/// Makes a volume whose lease a node holds, and that nothing uses.
async fn leased(flocker: &Flocker, number: usize, name: &str) -> Uuid {
    let dataset = declare(flocker, number, &[("name", name)]).await;
    let client = flocker.client().await;
    client
        .acquire_lease(dataset, flocker.node(number), None)
        .await
        .unwrap();
    dataset
}

#[test]
fn an_unused_lease_is_released_once_its_node_is_gone_or_by_force() {
    in_own_namespace(|| async {
        let fixture = fixture().await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        // This machine's node, and another one.
        for number in [1, 2] {
            let node = flocker.node(number);
            let volume = leased(flocker, number, "volume").await;
            let refused = release(machine, "volume", node, &[]).await;
            refused.assert_code(1).assert_said(&[
                &volume.to_string(),
                &node.to_string(),
                "reports to Flocker",
                "--force",
            ]);
            assert_eq!(flocker.leaseholder(volume).await, Some(node));
            let forced = release(machine, "volume", node, &["--force", "--output=json"]).await;
            assert_eq!(
                forced.assert_code(0).document("lease-release")["outcome"],
                "released"
            );
            assert_eq!(flocker.leaseholder(volume).await, None);
            let again = release(machine, &volume.to_string(), node, &[]).await;
            assert_eq!(
                again.assert_code(0).text,
                format!("no node holds a lease on volume \"volume\" ({volume})\n")
            );

            let client = flocker.client().await;
            client.acquire_lease(volume, node, None).await.unwrap();
            set_agent(flocker, number, AgentState::Stopped).await;
            let forced = release(machine, "volume", node, &["--force", LATE]).await;
            forced
                .assert_code(0)
                .assert_said(&["if it only lost its network, its tasks still write"]);
            assert_eq!(flocker.leaseholder(volume).await, None);

            client.acquire_lease(volume, node, None).await.unwrap();
            let (waiting, ()) = tokio::join!(
                release(machine, "volume", node, &[LATE]),
                set_agent(flocker, number, AgentState::Running)
            );
            // The command may have begun before or after the agent.
            waiting.assert_code(1);
            assert!(
                waiting.said.contains("again") || waiting.said.contains("reports to Flocker"),
                "{waiting:?}"
            );
            assert_eq!(flocker.leaseholder(volume).await, Some(node));

            set_agent(flocker, number, AgentState::Stopped).await;
            let gone = release(machine, "volume", node, &[SOON]).await;
            gone.assert_code(0)
                .assert_said(&["is missing; it counts as gone once"]);
            assert!(gone.text.starts_with("released the lease of node "), "{gone:?}");
            assert_eq!(flocker.leaseholder(volume).await, None);
            client.acquire_lease(volume, node, None).await.unwrap();
            release(machine, "volume", node, &[SOON, "--force"])
                .await
                .assert_code(0);
            assert_eq!(flocker.leaseholder(volume).await, None);
            set_agent(flocker, number, AgentState::Running).await;
            client.delete_dataset(volume).await.unwrap();
        }
    });
}

#[test]
fn a_lease_that_is_used_here_is_never_released() {
    in_own_namespace(|| async {
        let fixture = fixture().await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        let node = machine.node();
        let published = fixture.published("published").await;
        let staged = fixture.staged("staged").await;
        for agent in [AgentState::Running, AgentState::Stopped] {
            set_agent(flocker, 1, agent).await;
            for (usage, name, used) in [
                (
                    &published,
                    "published",
                    format!("it is published at {}", published.target.display()),
                ),
                (
                    &staged,
                    "staged",
                    format!("it is staged at {}", staged.staging.display()),
                ),
            ] {
                for more in [&[SOON][..], &[LATE], &[SOON, "--force"], &[LATE, "--force"]] {
                    let refused = release(machine, name, node, more).await;
                    refused
                        .assert_code(1)
                        .assert_said(&["is in use on this machine: ", &used]);
                    assert_eq!(refused.text, "");
                    assert_eq!(flocker.leaseholder(usage.dataset()).await, Some(node));
                }
            }
        }
        // Nor is it where the node is not known to be this machine, and where a process outside has the file system.
        set_agent(flocker, 1, AgentState::Running).await;
        let arguments = arguments(
            machine,
            &["leases", "release", "staged", "--yes", "--force", "--node"],
        );
        let mut unknown: Vec<_> = arguments
            .into_iter()
            .filter(|flag| !flag.starts_with("--node-id"))
            .collect();
        unknown.insert(6, node.to_string());
        unknown.push("--state-dir=/nowhere".to_owned());
        unknown.retain(|flag| !flag.contains("machine-1/state"));
        let unknown: Vec<_> = unknown.iter().map(String::as_str).collect();
        end(program(&unknown))
            .await
            .assert_code(1)
            .assert_said(&["is in use on this machine: it is staged at"]);

        fixture.csi().unstage(&staged).await.unwrap();
        let mount = flocker.mount_of(1, staged.dataset());
        let open = std::fs::File::open(&mount).unwrap();
        let refused = release(machine, "staged", node, &["--force"]).await;
        refused
            .assert_code(1)
            .assert_said(&["is in use on this machine: process ", " open"]);
        drop(open);
        release(machine, "staged", node, &["--force"])
            .await
            .assert_code(0);
        assert_eq!(flocker.leaseholder(staged.dataset()).await, None);
    });
}

#[test]
fn only_the_lease_of_the_node_that_was_named_is_released() {
    in_own_namespace(|| async {
        let fixture = fixture().await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        let volume = leased(flocker, 2, "volume").await;
        let refused = release(machine, "volume", flocker.node(1), &["--force"]).await;
        let holder = format!("but by node 127.0.0.2 ({})", flocker.node(2));
        refused
            .assert_code(1)
            .assert_said(&["is not held by node 127.0.0.1 (", &holder]);
        release(machine, "volume", Uuid::new_v4(), &["--force"])
            .await
            .assert_code(1)
            .assert_said(&["is no node of Flocker"]);
        release(machine, "volumes", flocker.node(2), &["--force"])
            .await
            .assert_code(1)
            .assert_said(&["\"volumes\""]);
        assert_eq!(flocker.leaseholder(volume).await, Some(flocker.node(2)));
    });
}

#[test]
fn a_release_is_confirmed_on_a_terminal_and_nowhere_else() {
    in_own_namespace(|| async {
        let fixture = fixture().await;
        let (flocker, machine) = (&fixture.flocker, &fixture.machine);
        let volume = leased(flocker, 2, "volume").await;
        let arguments = arguments(
            machine,
            &["leases", "release", "volume", "--force", "--node=127.0.0.2"],
        );
        let command = format!("{} {}", env!("CARGO_BIN_EXE_flocker-csi"), arguments.join(" "));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        end(program(&arguments))
            .await
            .assert_code(2)
            .assert_said(&["is no terminal on which to ask: add --yes"]);
        for (answer, code, holder) in [("\n", 1, Some(flocker.node(2))), ("y\n", 0, None)] {
            let mut terminal = Command::new("script");
            terminal.args(["--quiet", "--return", "--command", &command, "/dev/null"]);
            let mut child = terminal
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(answer.as_bytes()).await.unwrap();
            let ended = child.wait_with_output().await.unwrap();
            let text = String::from_utf8_lossy(&ended.stdout);
            assert_eq!(ended.status.code(), Some(code), "{text}");
            assert!(text.contains("Release the lease of node 127.0.0.2 ("), "{text}");
            assert_eq!(flocker.leaseholder(volume).await, holder, "{text}");
        }
    });
}
