//! What is waited for while an agent of Flocker's is dead, and that it is had when the agent is back.

use std::time::Duration;

use flocker_embedded::faults::{AgentState, NodeFault};
use tonic::{Code, Status};

use super::DATASETS;
use super::status::assert_unfinished;
use crate::node::Stand;
use crate::support::csi::{Csi, Usage, to_create, within};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::gate::Gate;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

impl Stand {
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
fn a_backing_volume_is_waited_for_by_name_of_its_node_and_had_when_the_agent_is_back() {
    in_own_namespace(|| async {
        let stand = Stand::start(1).await;
        stand.set_agent(1, AgentState::Stopped);
        let created = stand
            .csi()
            .try_create(within(Duration::from_secs(3), to_create("data")))
            .await;
        let missing = format!(
            "waiting for \"backing volume\": node {} has not created it",
            stand.machine.node()
        );
        assert_unfinished(
            created,
            Code::DeadlineExceeded,
            &["creating volume \"data\"", &missing],
        );
        stand.set_agent(1, AgentState::Running);
        stand.csi().create("data").await;
        assert_eq!(stand.asked("POST", DATASETS), 1);
        assert_eq!(stand.flocker.backing_files().len(), 1);
    });
}

#[test]
fn a_mount_that_is_missing_is_told_with_node_and_path_and_since_it_is_waited_for() {
    in_own_namespace(|| async {
        let stand = Stand::start(2).await;
        let usage = stand.attached_to_a_dead_agent().await;
        // Flocker is asked once more after ten seconds, which begins nothing anew.
        let refused = stage_within(stand.csi(), &usage, Duration::from_secs(14))
            .await
            .unwrap_err();
        let missing = format!(
            "waiting for \"mounted here\": nothing is mounted at {} on node {} yet for ",
            stand.flocker.mount_of(1, usage.dataset()).display(),
            stand.machine.node()
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
        assert_eq!(Mounts::read().below(&stand.machine.path("")), []);
        stand.set_agent(1, AgentState::Running);
        stand.csi().stage(&usage).await.unwrap();
        only_mount_at(&usage.alias());
    });
}

#[test]
fn a_mount_is_waited_for_while_flocker_is_away_and_its_last_error_is_told() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let gate = Gate::to(flocker.embedded().address()).await;
        let stand = Stand::on(Machine::through(gate.address(), &flocker, 1), flocker).await;
        let usage = stand.attached_to_a_dead_agent().await;
        let (csi, staging) = (stand.csi().clone(), usage.clone());
        let staging = tokio::spawn(async move { csi.stage(&staging).await });
        let told = async |words: &str| {
            eventually(&format!("staging tells {words:?}"), async || {
                let told = stage_within(stand.csi(), &usage, Duration::from_millis(400)).await;
                let told = told.unwrap_err();
                (told.message().contains("\"mounted here\"") && told.message().contains(words)).then_some(())
            })
            .await;
        };
        told("without errors").await;
        gate.close();
        told("its last error was").await;
        assert!(!staging.is_finished());
        gate.open();
        stand.set_agent(1, AgentState::Running);
        staging.await.unwrap().unwrap();
        only_mount_at(&usage.alias());
    });
}
