//! The life of containers that name a volume, on one agent.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use csi_proto::v1::volume_capability::access_mode::Mode as AccessMode;
use uuid::Uuid;

use super::agent::Agent;
use super::isolator::{Container, Isolator};
use super::task::Mode;
use super::types::{Api, Capability};
use super::{Fixture, PUBLISH, UNPUBLISH, assert_failed, both, calls};
use crate::support::flocker::Flocker;
use crate::support::mounts::{Mounts, only_mount_at};

/// The calls of an agent that starts: none to the controller, and not even one for the node's id.
const START: [&str; 4] = [
    "Probe",
    "GetPluginCapabilities",
    "GetPluginInfo",
    "NodeGetCapabilities",
];
const UNPRIVILEGED: u32 = 65534;

both!(
    a_task_finds_its_volume_and_leaves_it_with_its_data,
    the_tasks_of_a_group_share_one_mount,
    a_task_that_follows_another_is_published_before_that_is_cleaned_up,
    a_task_of_another_user_owns_the_volume,
    a_volume_is_published_for_reading_or_for_writing,
    a_task_whose_volume_cannot_be_staged_gets_the_reason,
    an_unmanaged_plugin_may_start_late,
    a_plugin_that_is_killed_loses_nothing_of_a_task,
    a_volume_is_unpublished_after_the_agent_has_started_again,
    a_task_that_ended_while_the_agent_was_down_is_cleaned_up_after,
    a_volume_staged_before_a_reboot_is_released_after_it,
    directories_of_volumes_that_are_not_known_are_deleted_and_no_data_with_them,
);

impl Fixture {
    async fn volume(&self) -> String {
        self.plugin.csi.create("data").await.to_string()
    }

    /// Checks that nothing of a volume is left on this agent except for Flocker's own.
    fn nothing_left(&self, isolator: &Isolator) {
        assert_eq!(Mounts::read().below(&self.agent.work_dir), []);
        assert_eq!(isolator.volumes().tracked(), Vec::<&str>::new());
        let mounts = self.agent.plan("isolator", false).mount_root;
        assert_eq!(fs::read_dir(mounts).unwrap().count(), 0);
        assert!(self.agent.machine.records().is_empty());
    }
}

/// Covers `VolumeCSIIsolatorTest.ROOT_CommandTaskWithVolume`.
async fn a_task_finds_its_volume_and_leaves_it_with_its_data(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    assert_eq!(isolator.calls(), START);
    for (number, expected) in [(1, ""), (2, "1"), (3, "1\n2")] {
        let container = Container::new(&format!("task-{number}"), &volume);
        let command = format!("touch file; cat file; echo {number} >> file");
        let (task, said) = isolator.launch(&container, &command).await.unwrap();
        assert_eq!(said, expected);
        assert_eq!(isolator.calls(), PUBLISH);
        only_mount_at(&isolator.volumes().target(&volume));
        task.end().await;
        isolator.clean_up(&container.id).await.unwrap();
        assert_eq!(isolator.calls(), UNPUBLISH);
        fixture.nothing_left(&isolator);
    }
    assert_eq!(fixture.read_back(&volume, "file"), "1\n2\n3\n");
    assert_eq!(fixture.flocker.leaseholder(volume.parse().unwrap()).await, None);
    fixture.plugin.stop().await;
}

/// Covers `VolumeCSIIsolatorTest.ROOT_TaskGroupWithVolume`.
async fn the_tasks_of_a_group_share_one_mount(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    isolator.calls();
    let (one, two) = (Container::new("one", &volume), Container::new("two", &volume));
    let (first, _) = isolator.launch(&one, "echo precious > file").await.unwrap();
    let before = Mounts::read().below(&fixture.agent.work_dir);
    let (second, said) = isolator.launch(&two, "cat file").await.unwrap();
    assert_eq!(said, "precious");
    assert_eq!(isolator.calls(), calls(&[&PUBLISH, &PUBLISH]));
    assert_eq!(Mounts::read().below(&fixture.agent.work_dir), before);

    first.end().await;
    isolator.clean_up("one").await.unwrap();
    assert_eq!(isolator.calls(), Vec::<&str>::new());
    only_mount_at(&isolator.volumes().target(&volume));
    second.end().await;
    isolator.clean_up("two").await.unwrap();
    assert_eq!(isolator.calls(), UNPUBLISH);
    fixture.nothing_left(&isolator);
    assert_eq!(fixture.read_back(&volume, "file"), "precious\n");
    fixture.plugin.stop().await;
}

/// A task is cleaned up a second after its end, and its successor on the same agent may be faster.
async fn a_task_that_follows_another_is_published_before_that_is_cleaned_up(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    let (mut task, _) = isolator
        .launch(&Container::new("task-0", &volume), "echo precious > file")
        .await
        .unwrap();
    isolator.calls();
    for number in 1..=3 {
        task.end().await;
        let next = Container::new(&format!("task-{number}"), &volume);
        let (started, said) = isolator.launch(&next, "cat file").await.unwrap();
        assert_eq!(said, "precious");
        task = started;
        isolator.clean_up(&format!("task-{}", number - 1)).await.unwrap();
        assert_eq!(isolator.calls(), PUBLISH);
        only_mount_at(&isolator.volumes().target(&volume));
    }
    task.end().await;
    isolator.clean_up("task-3").await.unwrap();
    fixture.nothing_left(&isolator);
    fixture.plugin.stop().await;
}

/// Covers `VolumeCSIIsolatorTest.UNPRIVILEGED_USER_NonRootTaskUser`.
async fn a_task_of_another_user_owns_the_volume(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    let unprivileged = Container {
        user: Some(UNPRIVILEGED),
        ..Container::new("unprivileged", &volume)
    };
    let (task, said) = isolator
        .launch(&unprivileged, "id -u; echo precious > file")
        .await
        .unwrap();
    assert_eq!(said, UNPRIVILEGED.to_string());
    let owner = |volume: &str| {
        let root = fs::metadata(fixture.flocker.mount_of(1, volume.parse().unwrap())).unwrap();
        (root.uid(), root.gid())
    };
    assert_eq!(owner(&volume), (UNPRIVILEGED, UNPRIVILEGED));
    // Another container already uses it: the owner stays.
    let of_root = Container {
        user: Some(UNPRIVILEGED - 1),
        ..Container::new("of-another", &volume)
    };
    let (other, said) = isolator.launch(&of_root, "cat file").await.unwrap();
    assert_eq!(said, "precious");
    assert_eq!(owner(&volume), (UNPRIVILEGED, UNPRIVILEGED));
    for (task, id) in [(task, "unprivileged"), (other, "of-another")] {
        task.end().await;
        isolator.clean_up(id).await.unwrap();
    }
    fixture.nothing_left(&isolator);
    assert_eq!(owner(&volume), (UNPRIVILEGED, UNPRIVILEGED), "it stays so");

    // Mesos tries the same with a volume that it has published read-only, and fails.
    let reader = Container {
        mode: Mode::Ro,
        ..unprivileged
    };
    assert_failed(
        isolator.launch(&reader, "cat file").await,
        &[
            "Failed to launch container",
            "Failed to change the ownership",
            "Read-only file system",
        ],
    );
    fixture.nothing_left(&isolator);
    assert_eq!(fixture.read_back(&volume, "file"), "precious\n");
    fixture.plugin.stop().await;
}

/// The target of a volume is the same for containers that read and for those that write, which the specification
/// does not allow.
async fn a_volume_is_published_for_reading_or_for_writing(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    let writer = Container::new("writer", &volume);
    let reader = Container {
        mode: Mode::Ro,
        ..Container::new("reader", &volume)
    };
    let (task, _) = isolator.launch(&writer, "echo precious > file").await.unwrap();
    assert_failed(
        isolator.launch(&reader, "cat file").await,
        &["Failed to launch container", "ALREADY_EXISTS", &volume],
    );
    only_mount_at(&isolator.volumes().target(&volume));
    task.end().await;
    isolator.clean_up("writer").await.unwrap();
    fixture.nothing_left(&isolator);

    let (task, said) = isolator
        .launch(&reader, "cat file; ! touch other 2>&1")
        .await
        .unwrap();
    assert!(
        said.starts_with("precious\n") && said.contains("Read-only file system"),
        "{said}"
    );
    task.end().await;
    isolator.clean_up("reader").await.unwrap();
    fixture.nothing_left(&isolator);
    fixture.plugin.stop().await;
}

/// A user of Mesos sees the plugin's message of a failure.
async fn a_task_whose_volume_cannot_be_staged_gets_the_reason(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    isolator.calls();
    let unknown = Uuid::new_v4().to_string();
    let volume = fixture.volume().await;
    let many = Container {
        capability: Capability::with_mode(AccessMode::MultiNodeMultiWriter),
        ..Container::new("task", &volume)
    };
    for (container, words) in [
        (Container::new("task", &unknown), ["NOT_FOUND", &*unknown]),
        (many, ["Failed to launch container", "MULTI_NODE_MULTI_WRITER"]),
    ] {
        assert_failed(isolator.launch(&container, "true").await, &words);
        // It was never published; and a volume that may be staged is unstaged.
        assert_eq!(isolator.calls(), ["NodeStageVolume", "NodeUnstageVolume"]);
        fixture.nothing_left(&isolator);
    }
    fixture.plugin.stop().await;
}

/// Covers `VolumeCSIIsolatorTest.ROOT_UnmanagedPlugin` and `ROOT_PluginConfigAddedAtRuntime`.
async fn an_unmanaged_plugin_may_start_late(api: Api) {
    let flocker = Flocker::start(1).await;
    let mut agent = Agent::new(&flocker, 1, api);
    let running = agent.machine.plugin().await;
    let volume = running.csi.create("data").await.to_string();
    running.stop().await;
    agent.deadline = Some(Duration::from_millis(500));
    let mut isolator = agent.isolator(&[]).await.unwrap();
    // The launch waits for the plugin as long as a call may take, and so does the clean-up after it.
    let refused = isolator.launch(&Container::new("early", "other"), "true").await;
    let cleaning = "Failed to clean up an isolator when destroying container";
    assert_failed(
        refused,
        &["Failed to probe endpoint", "DEADLINE_EXCEEDED", cleaning],
    );

    let plugin = agent.process().await;
    agent.deadline = None;
    // The volume that could not be cleaned up is still published.
    let mut isolator = agent.isolator(&["early"]).await.unwrap();
    let container = Container::new("task", &volume);
    let (task, _) = isolator.launch(&container, "echo precious > file").await.unwrap();
    // The plugin ends, and a waiting call is answered when the plugin is back.
    plugin.kill().await;
    task.end().await;
    let cleaning = tokio::spawn(async move {
        let cleaned = isolator.clean_up("task").await;
        (isolator, cleaned)
    });
    let plugin = agent.process().await;
    let (mut isolator, cleaned) = cleaning.await.unwrap();
    cleaned.unwrap();
    let (task, said) = isolator.launch(&container, "cat file").await.unwrap();
    assert_eq!(said, "precious");
    task.end().await;
    isolator.clean_up("task").await.unwrap();
    plugin.kill().await;
}

/// The same as `StorageLocalResourceProviderTest.AgentFailoverPluginKilled`, for `volume/csi`.
async fn a_plugin_that_is_killed_loses_nothing_of_a_task(api: Api) {
    let flocker = Flocker::start(1).await;
    let agent = Agent::new(&flocker, 1, api);
    let plugin = agent.process().await;
    let volume = plugin.csi.create("data").await.to_string();
    let mut isolator = agent.isolator(&[]).await.unwrap();
    let (task, _) = isolator
        .launch(&Container::new("first", &volume), "echo precious > file")
        .await
        .unwrap();
    plugin.kill().await;
    only_mount_at(&isolator.volumes().target(&volume));
    let plugin = agent.process().await;
    let (second, said) = isolator
        .launch(&Container::new("second", &volume), "cat file")
        .await
        .unwrap();
    assert_eq!(said, "precious");
    only_mount_at(&isolator.volumes().target(&volume));
    for (task, id) in [(task, "first"), (second, "second")] {
        task.end().await;
        isolator.clean_up(id).await.unwrap();
    }
    assert_eq!(Mounts::read().below(&agent.work_dir), []);
    plugin.kill().await;
}

/// Covers `VolumeCSIIsolatorTest.ROOT_UnpublishAfterAgentFailover`.
async fn a_volume_is_unpublished_after_the_agent_has_started_again(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    let container = Container::new("task", &volume);
    let (task, _) = isolator.launch(&container, "echo precious > file").await.unwrap();
    let mut isolator = fixture.agent.isolator(&["task"]).await.unwrap();
    assert_eq!(
        isolator.calls(),
        START,
        "what is published stays so without a call"
    );
    only_mount_at(&isolator.volumes().target(&volume));
    task.end().await;
    isolator.clean_up("task").await.unwrap();
    assert_eq!(isolator.calls(), UNPUBLISH);
    fixture.nothing_left(&isolator);
    assert_eq!(fixture.read_back(&volume, "file"), "precious\n");
    fixture.plugin.stop().await;
}

/// Covers `VolumeCSIIsolatorTest.ROOT_FinishedWhileAgentDown`.
async fn a_task_that_ended_while_the_agent_was_down_is_cleaned_up_after(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    let (task, _) = isolator
        .launch(&Container::new("task", &volume), "echo precious > file")
        .await
        .unwrap();
    task.end().await;
    let isolator = fixture.agent.isolator(&[]).await.unwrap();
    assert_eq!(isolator.calls(), calls(&[&START, &UNPUBLISH]));
    fixture.nothing_left(&isolator);
    assert_eq!(fixture.read_back(&volume, "file"), "precious\n");
    fixture.plugin.stop().await;
}

/// After a reboot the agent publishes the volumes of a container, because it may have to clean them up, and then
/// unpublishes them because the container no longer exists.
async fn a_volume_staged_before_a_reboot_is_released_after_it(api: Api) {
    let flocker = Flocker::start(1).await;
    let mut agent = Agent::new(&flocker, 1, api);
    let plugin = agent.process().await;
    let volume = plugin.csi.create("data").await.to_string();
    let mut isolator = agent.isolator(&[]).await.unwrap();
    let container = Container::new("task", &volume);
    let (task, _) = isolator
        .launch(&container, "echo precious > file; sync file")
        .await
        .unwrap();
    task.end().await;
    plugin.kill().await;
    agent.reboot(&flocker);

    let plugin = agent.process().await;
    let mut isolator = agent.isolator(&[]).await.unwrap();
    assert_eq!(isolator.calls(), calls(&[&START, &PUBLISH, &UNPUBLISH]));
    assert_eq!(flocker.leaseholder(volume.parse().unwrap()).await, None);
    let (task, said) = isolator.launch(&container, "cat file").await.unwrap();
    assert_eq!(said, "precious");
    task.end().await;
    isolator.clean_up("task").await.unwrap();
    plugin.kill().await;
}

/// Mesos deletes everything that it finds where volumes are published and that it does not know.
async fn directories_of_volumes_that_are_not_known_are_deleted_and_no_data_with_them(api: Api) {
    let fixture = Fixture::start(api).await;
    let volume = fixture.volume().await;
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    let (task, _) = isolator
        .launch(&Container::new("task", &volume), "echo precious > file")
        .await
        .unwrap();
    task.end().await;
    isolator.clean_up("task").await.unwrap();
    let mounts = fixture.agent.plan("isolator", false).mount_root;
    for name in [&*volume, "some%2Fother", "not a volume"] {
        fs::create_dir_all(mounts.join(name).join("staging").join(&volume)).unwrap();
        fs::create_dir_all(mounts.join(name).join("target")).unwrap();
        fs::write(mounts.join(name).join("target/file"), "").unwrap();
    }
    let mut isolator = fixture.agent.isolator(&[]).await.unwrap();
    fixture.nothing_left(&isolator);
    assert_eq!(fixture.read_back(&volume, "file"), "precious\n");
    let (task, said) = isolator
        .launch(&Container::new("task", &volume), "cat file")
        .await
        .unwrap();
    assert_eq!(said, "precious");
    task.end().await;
    isolator.clean_up("task").await.unwrap();
    fixture.plugin.stop().await;
}
