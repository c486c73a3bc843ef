//! Tasks that move from one agent to another with their volume, with only the calls of `volume/csi`.

use host_fs::mount::testing::unmount;
use std::time::Duration;

use flocker_csi::flocker::attach::Takeover;
use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, MachineState};
use tokio::task::JoinHandle;

use super::agent::Agent;
use super::failure::Failure;
use super::isolator::{Container, Isolator};
use super::task::Task;
use super::types::Api;
use super::{PUBLISH, assert_failed, both, calls};
use crate::attach::wait_until_staging_at;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Running;
use crate::support::mounts::Mounts;

/// How long Flocker lists a silent node, and how long after that the plugin considers it dead.
const SOON: Duration = Duration::from_secs(1);
/// The error of a call that ends while its volume is in use elsewhere.
const SHORT: Duration = Duration::from_secs(3);

both!(
    a_task_that_starts_elsewhere_finds_what_it_has_written,
    a_second_task_elsewhere_is_refused_with_the_name_of_the_holder,
    a_task_that_is_restarted_elsewhere_waits_until_its_predecessor_is_cleaned_up_after,
    a_task_of_a_dead_node_starts_elsewhere_where_takeover_is_allowed,
    a_task_of_a_node_that_rebooted_starts_elsewhere,
);

/// Two agents; the second one's plugin runs here.
struct Pair {
    flocker: Flocker,
    first: Agent,
    second: Agent,
    plugin: Running,
}

/// The result of a launch that takes a while.
type Launching = JoinHandle<(Isolator, Result<(Task, String), Failure>)>;

impl Pair {
    async fn start(api: Api) -> Self {
        Self::taking_over(api, Takeover::Never).await
    }

    async fn taking_over(api: Api, takeover: Takeover) -> Self {
        let options = |options| Options {
            nodes: 2,
            node_expiry: Some(SOON),
            ..options
        };
        let flocker = Flocker::with(options).await;
        let (first, mut second) = (Agent::new(&flocker, 1, api), Agent::new(&flocker, 2, api));
        let settings = &mut second.machine.config.node_loss;
        settings.takeover = takeover;
        settings.takeover_grace = SOON;
        let plugin = second.machine.plugin().await;
        Self {
            flocker,
            first,
            second,
            plugin,
        }
    }

    /// Creates a volume on the first node.
    async fn volume(&self) -> String {
        let volume = self.plugin.csi.create("data").await;
        self.plugin.csi.attach(volume, self.first.machine.node()).await;
        self.plugin.csi.detach(volume, self.first.machine.node()).await;
        volume.to_string()
    }

    /// Launches a task on the second agent, and returns when the call reports that it waits, with these words.
    async fn launch_behind(&self, mut isolator: Isolator, container: Container, words: &str) -> Launching {
        let staging = self.second.plan("isolator", false).mount_root;
        let staging = staging.join(&container.volume_id).join("staging");
        let launching = tokio::spawn(async move {
            let launched = isolator.launch(&container, "cat file").await;
            (isolator, launched)
        });
        eventually("the volume's directory exists", async || {
            staging.exists().then_some(())
        })
        .await;
        wait_until_staging_at(&self.plugin.csi, &staging, words).await;
        launching
    }

    fn waits_for_the_first(&self) -> String {
        format!("\"lease of node {}\"", self.first.machine.node())
    }
}

/// A task's data moves with it.
async fn a_task_that_starts_elsewhere_finds_what_it_has_written(api: Api) {
    let pair = Pair::start(api).await;
    let plugin = pair.first.machine.plugin().await;
    let volume = pair.volume().await;
    let mut isolators = [
        pair.first.isolator(&[]).await.unwrap(),
        pair.second.isolator(&[]).await.unwrap(),
    ];
    let mut expected = String::new();
    for round in 0..4 {
        let isolator = &mut isolators[round % 2];
        let container = Container::new(&format!("task-{round}"), &volume);
        let command = format!("touch file; cat file; echo -n {round} >> file");
        let (task, said) = isolator.launch(&container, &command).await.unwrap();
        assert_eq!(said, expected);
        expected += &round.to_string();
        // The agent dies.
        drop(task);
        isolator.clean_up(&container.id).await.unwrap();
    }
    let made = calls(&[&PUBLISH, &super::UNPUBLISH]);
    for isolator in isolators {
        assert_eq!(
            isolator.calls()[4..],
            calls(&[&made, &made]),
            "nothing else was called"
        );
    }
    assert_eq!(pair.flocker.leaseholder(volume.parse().unwrap()).await, None);
    plugin.stop().await;
    pair.plugin.stop().await;
}

/// Only the plugin prevents two agents from writing to one volume.
async fn a_second_task_elsewhere_is_refused_with_the_name_of_the_holder(api: Api) {
    let mut pair = Pair::start(api).await;
    let plugin = pair.first.machine.plugin().await;
    let volume = pair.volume().await;
    let mut here = pair.first.isolator(&[]).await.unwrap();
    let (task, _) = here
        .launch(&Container::new("first", &volume), "echo precious > file")
        .await
        .unwrap();
    pair.second.deadline = Some(SHORT);
    let mut there = pair.second.isolator(&[]).await.unwrap();
    let holder = pair.first.machine.node().to_string();
    assert_failed(
        there.launch(&Container::new("second", &volume), "cat file").await,
        &[
            "Failed to launch container: FAILED_PRECONDITION",
            &volume,
            &holder,
        ],
    );
    assert_eq!(there.calls()[4..], ["NodeStageVolume", "NodeUnstageVolume"]);
    assert_eq!(Mounts::read().below(&pair.second.work_dir), []);
    assert!(pair.second.machine.records().is_empty());
    assert_eq!(
        pair.flocker.leaseholder(volume.parse().unwrap()).await,
        Some(pair.first.machine.node())
    );

    task.end().await;
    here.clean_up("first").await.unwrap();
    let (task, said) = there
        .launch(&Container::new("third", &volume), "cat file")
        .await
        .unwrap();
    assert_eq!(said, "precious");
    task.end().await;
    there.clean_up("third").await.unwrap();
    plugin.stop().await;
    pair.plugin.stop().await;
}

/// The clean-up after a task follows a second after its end, and another agent may be faster.
async fn a_task_that_is_restarted_elsewhere_waits_until_its_predecessor_is_cleaned_up_after(api: Api) {
    let pair = Pair::start(api).await;
    let plugin = pair.first.machine.plugin().await;
    let volume = pair.volume().await;
    let mut here = pair.first.isolator(&[]).await.unwrap();
    let (task, _) = here
        .launch(&Container::new("first", &volume), "echo precious > file")
        .await
        .unwrap();
    task.end().await;
    let there = pair.second.isolator(&[]).await.unwrap();
    let container = Container::new("second", &volume);
    let launching = pair
        .launch_behind(there, container, &pair.waits_for_the_first())
        .await;
    here.clean_up("first").await.unwrap();
    let (mut there, launched) = launching.await.unwrap();
    let (task, said) = launched.unwrap();
    assert_eq!(said, "precious");
    task.end().await;
    there.clean_up("second").await.unwrap();
    plugin.stop().await;
    pair.plugin.stop().await;
}

/// The agent of a dead node never cleans up; `takeover = node-gone` defines what happens then.
async fn a_task_of_a_dead_node_starts_elsewhere_where_takeover_is_allowed(api: Api) {
    let pair = Pair::taking_over(api, Takeover::NodeGone).await;
    let plugin = pair.first.process().await;
    let volume = pair.volume().await;
    let mut here = pair.first.isolator(&[]).await.unwrap();
    let (task, _) = here
        .launch(
            &Container::new("first", &volume),
            "echo precious > file; sync file",
        )
        .await
        .unwrap();
    let there = pair.second.isolator(&[]).await.unwrap();
    let container = Container::new("second", &volume);
    let launching = pair
        .launch_behind(there, container, &pair.waits_for_the_first())
        .await;

    // The power cut: the node's processes and mounts no longer exist, and the backend knows it.
    drop(task);
    plugin.kill().await;
    for mount in Mounts::read().below(&pair.first.work_dir).iter().rev() {
        unmount(&mount.point);
    }
    std::fs::remove_dir_all(&pair.first.machine.config.plugin.device_dir).unwrap();
    pair.flocker.embedded().faults().change(|plan| {
        plan.dead_nodes_known = true;
        let node = plan.nodes.entry(1).or_default();
        node.agent = AgentState::Running;
        node.machine = MachineState::Off;
    });
    let (mut there, launched) = launching.await.unwrap();
    let (task, said) = launched.unwrap();
    assert_eq!(said, "precious");
    let holder = pair.flocker.leaseholder(volume.parse().unwrap()).await;
    assert_eq!(holder, Some(pair.second.machine.node()));
    task.end().await;
    there.clean_up("second").await.unwrap();
    pair.plugin.stop().await;
}

/// With `takeover = never` the holder must return, which a reboot does.
async fn a_task_of_a_node_that_rebooted_starts_elsewhere(api: Api) {
    let mut pair = Pair::start(api).await;
    let plugin = pair.first.process().await;
    let volume = pair.volume().await;
    let mut here = pair.first.isolator(&[]).await.unwrap();
    let (task, _) = here
        .launch(
            &Container::new("first", &volume),
            "echo precious > file; sync file",
        )
        .await
        .unwrap();
    task.end().await;
    plugin.kill().await;
    let there = pair.second.isolator(&[]).await.unwrap();
    let container = Container::new("second", &volume);
    let launching = pair
        .launch_behind(there, container, &pair.waits_for_the_first())
        .await;
    pair.first.reboot(&pair.flocker);

    // The plugin alone releases its volumes, before any agent runs.
    let plugin = pair.first.process().await;
    let (mut there, launched) = launching.await.unwrap();
    let (task, said) = launched.unwrap();
    assert_eq!(said, "precious");
    assert!(pair.first.machine.records().is_empty());
    let holder = pair.flocker.leaseholder(volume.parse().unwrap()).await;
    assert_eq!(holder, Some(pair.second.machine.node()));

    // The agent wants to publish the container's volume before it cleans up the container, and cannot do so yet.
    pair.first.deadline = Some(SHORT);
    let holder = pair.second.machine.node().to_string();
    assert_failed(
        pair.first.isolator(&[]).await,
        &["FAILED_PRECONDITION", &volume, &holder],
    );
    task.end().await;
    there.clean_up("second").await.unwrap();
    let here = pair.first.isolator(&[]).await.unwrap();
    assert_eq!(here.volumes().tracked(), Vec::<&str>::new());
    assert_eq!(Mounts::read().below(&pair.first.work_dir), []);
    plugin.kill().await;
    pair.plugin.stop().await;
}
