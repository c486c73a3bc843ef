//! Operations that wait for a dead agent of Flocker's, and complete when the agent returns.

use std::time::Duration;

use flocker_embedded::faults::{AgentState, NodeFault};
use tonic::{Code, Status};

use super::DATASETS;
use super::status::assert_unfinished;
use crate::node::Fixture;
use crate::support::csi::{Csi, Usage, to_create, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

impl Fixture {
    fn set_agent(&self, number: usize, agent: AgentState) {
        let fault = NodeFault {
            agent,
            ..NodeFault::default()
        };
        self.faults().change(|plan| {
            plan.nodes.insert(number, fault);
        });
    }

    /// Attaches a volume of the second node's to the first one, whose agent is dead.
    async fn attached_to_a_dead_agent(&self) -> Usage {
        let volume = self.csi().create("data").await;
        let second = self.flocker.node(2);
        self.csi().attach(volume, second).await;
        self.flocker.reports(2, volume).await;
        self.csi().detach(volume, second).await;
        self.set_agent(1, AgentState::Stopped);
        let context = self.csi().attach(volume, self.machine.node()).await;
        self.machine.usage("data", volume, &context)
    }
}

async fn stage_within(csi: &Csi, usage: &Usage, time: Duration) -> Result<(), Status> {
    let request = within(time, usage.to_stage());
    csi.node().node_stage_volume(request).await.map(drop)
}

#[test]
fn an_error_names_the_node_without_a_backing_volume_until_its_agent_returns() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        fixture.set_agent(1, AgentState::Stopped);
        let created = fixture
            .csi()
            .try_create(within(Duration::from_secs(3), to_create("data")))
            .await;
        let missing = format!("waiting for \"backing volume\": node {}", fixture.machine.node());
        assert_unfinished(
            created,
            Code::DeadlineExceeded,
            &["creating volume \"data\"", &missing, " has not created it"],
        );
        fixture.set_agent(1, AgentState::Running);
        fixture.csi().create("data").await;
        assert_eq!(fixture.asked("POST", DATASETS), 1);
        assert_eq!(fixture.flocker.backing_files().len(), 1);
    });
}

#[test]
fn a_missing_mount_is_reported_with_node_path_and_waiting_time() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let usage = fixture.attached_to_a_dead_agent().await;
        // Flocker is asked again after ten seconds, which does not restart the wait.
        let refused = stage_within(fixture.csi(), &usage, Duration::from_secs(14))
            .await
            .unwrap_err();
        let missing = format!(
            "waiting for \"mounted here\": nothing is mounted at {} on node {} yet for ",
            fixture.flocker.mount_of(1, usage.dataset()).display(),
            fixture.machine.node()
        );
        let text = refused.message().to_owned();
        let doing = format!(
            "staging volume {} at {}",
            usage.volume_id,
            usage.staging.display()
        );
        assert_unfinished(Err::<(), _>(refused), Code::DeadlineExceeded, &[&doing, &missing]);
        let since = text.split(&missing).nth(1).unwrap().split(' ').next().unwrap();
        assert!(since.parse::<f64>().unwrap() > 5.0, "{text}");
        assert_eq!(Mounts::read().below(&fixture.machine.path("")), []);
        fixture.set_agent(1, AgentState::Running);
        fixture.csi().stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
    });
}

#[test]
fn staging_waits_while_flocker_is_unreachable_and_reports_its_last_error() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let fixture = Fixture::on(Machine::through(proxy.address(), &flocker, 1), flocker).await;
        let usage = fixture.attached_to_a_dead_agent().await;
        let (csi, staging) = (fixture.csi().clone(), usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&staging).await });
        let reports = async |words: &str| {
            eventually(&format!("staging reports {words:?}"), async || {
                let staged = stage_within(fixture.csi(), &usage, Duration::from_millis(400)).await;
                let refused = staged.unwrap_err();
                (refused.message().contains("\"mounted here\"") && refused.message().contains(words))
                    .then_some(())
            })
            .await;
        };
        reports("without errors").await;
        proxy.close();
        reports("its last error was").await;
        assert!(!staging.is_finished());
        proxy.open();
        eventually("an error before the last answer is not quoted", async || {
            let staged = stage_within(fixture.csi(), &usage, Duration::from_millis(400)).await;
            let refused = staged.unwrap_err();
            let quotes = refused.message().contains("its last error was");
            (refused.message().contains("Flocker last answered") && !quotes).then_some(())
        })
        .await;
        fixture.set_agent(1, AgentState::Running);
        staging.await.unwrap().unwrap();
        only_mount_at(&usage.alias());
    });
}
