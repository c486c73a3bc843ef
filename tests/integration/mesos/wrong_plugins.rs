//! The client detects wrong plugins: for each requirement of Mesos, a plugin that breaks it.

use host_fs::mount::testing::unmount;
use std::fs;

use super::agent::MIB;
use super::isolator::{Container, Isolator};
use super::provider::Provider;
use super::proxy::{Proxy, Wrong};
use super::types::Api;
use super::{Fixture, assert_failed, both};
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;

both!(
    a_missing_staging_directory_is_detected,
    a_mount_that_is_left_is_noticed_before_its_data_is_deleted,
    mesos_itself_would_delete_the_data_below_a_mount_that_is_left,
    a_size_that_is_a_byte_off_is_noticed,
    a_volume_that_is_listed_twice_is_noticed,
    a_plugin_that_unmounts_when_it_stops_is_noticed,
    a_plugin_that_is_right_is_not_made_wrong_by_what_is_between,
);

/// A wrong plugin, and an agent that uses it.
struct Mistake {
    fixture: Fixture,
    proxy: Proxy,
}

impl Mistake {
    async fn start(api: Api, wrong: Wrong) -> Self {
        let mut fixture = Fixture::start(api).await;
        let proxy = Proxy::start(&fixture.agent.machine, api, wrong);
        fixture.agent.endpoint = proxy.endpoint.clone();
        Self { fixture, proxy }
    }

    async fn provider(&self) -> Provider {
        self.fixture.agent.provider().await.unwrap()
    }

    /// Starts the isolator, and a task on a volume; returns the task's container.
    async fn task(&self) -> (Isolator, Container) {
        let volume = self.fixture.plugin.csi.create("data").await.to_string();
        let mut isolator = self.fixture.agent.isolator(&[]).await.unwrap();
        let container = Container::new("task", &volume);
        let (task, _) = isolator.launch(&container, "echo precious > file").await.unwrap();
        task.end().await;
        (isolator, container)
    }

    async fn stop(self) {
        self.proxy.stop().await;
        self.fixture.plugin.stop().await;
    }
}

#[test]
fn a_target_that_is_not_made_is_noticed() {
    in_own_namespace(|| async {
        let mistake = Mistake::start(Api::V1, Wrong::MakesNoTarget).await;
        let mut provider = mistake.provider().await;
        let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
        let target = provider.manager.target(&id);
        let words = format!("Target path '{}' not created", target.display());
        assert_failed(provider.launch(&id).await, &[&words]);
        mistake.stop().await;
    });
}

#[test]
fn a_target_that_is_removed_although_mesos_made_it_is_noticed() {
    in_own_namespace(|| async {
        let mistake = Mistake::start(Api::V0, Wrong::RemovesTheTarget).await;
        let (mut isolator, container) = mistake.task().await;
        let target = isolator.volumes().target(&container.volume_id);
        let words = format!("Check failed: os::exists('{}')", target.display());
        assert_failed(isolator.clean_up(&container.id).await, &[&words]);
        mistake.stop().await;
    });
}

#[test]
fn a_target_that_is_left_is_noticed() {
    in_own_namespace(|| async {
        let mistake = Mistake::start(Api::V1, Wrong::LeavesTheTarget).await;
        let (mut isolator, container) = mistake.task().await;
        let target = isolator.volumes().target(&container.volume_id);
        let words = format!("Target path '{}' not removed", target.display());
        assert_failed(isolator.clean_up(&container.id).await, &[&words]);
        mistake.stop().await;
    });
}

async fn a_missing_staging_directory_is_detected(api: Api) {
    let mistake = Mistake::start(api, Wrong::RemovesTheStagingDirectory).await;
    let (mut isolator, container) = mistake.task().await;
    let staging = isolator.volumes().staging(&container.volume_id);
    let words = format!("Check failed: os::exists('{}')", staging.display());
    assert_failed(isolator.clean_up(&container.id).await, &[&words]);
    mistake.stop().await;
}

async fn a_mount_that_is_left_is_noticed_before_its_data_is_deleted(api: Api) {
    let mistake = Mistake::start(api, Wrong::LeavesAMount).await;
    let (mut isolator, container) = mistake.task().await;
    let staged = isolator
        .volumes()
        .staging(&container.volume_id)
        .join(&container.volume_id);
    let words = format!("Device or resource busy: '{}' is still mounted", staged.display());
    let cleaned = isolator.clean_up(&container.id).await;
    assert_failed(cleaned, &["Failed to remove directory", &words]);
    assert_eq!(fs::read_to_string(staged.join("file")).unwrap(), "precious\n");

    // The next agent does not either: for it, the directory is of an unknown volume.
    assert_failed(
        mistake.fixture.agent.isolator(&[]).await,
        &["Failed to remove directory", &words],
    );
    assert_eq!(
        mistake.fixture.read_back(&container.volume_id, "file"),
        "precious\n"
    );
    unmount(&staged);
    mistake.stop().await;
}

async fn mesos_itself_would_delete_the_data_below_a_mount_that_is_left(api: Api) {
    let mistake = Mistake::start(api, Wrong::LeavesAMount).await;
    let (mut isolator, container) = mistake.task().await;
    let staging = isolator.volumes().staging(&container.volume_id);
    assert!(isolator.clean_up(&container.id).await.is_err());
    // Without the check of the mount table, only the mount itself stops the deletion, after everything in it is deleted.
    let deleted = super::files::delete_recursively(&staging, super::files::Root::Removed);
    assert_eq!(deleted.unwrap_err().kind(), std::io::ErrorKind::ResourceBusy);
    let staged = staging.join(&container.volume_id);
    assert_eq!(fs::read_dir(&staged).unwrap().count(), 0);
    unmount(&staged);
    mistake.stop().await;
}

async fn a_size_that_is_a_byte_off_is_noticed(api: Api) {
    let mistake = Mistake::start(api, Wrong::TellsOtherSizes).await;
    let mut provider = mistake.provider().await;
    let words = [
        "Missing converted resource",
        "might cause further operations to fail",
    ];
    assert_failed(provider.create_disk("bronze", 64 * MIB).await, &words);
    mistake.stop().await;
}

#[test]
fn a_confirmation_of_something_else_is_noticed() {
    for (wrong, words) in [
        (Wrong::ConfirmsAnotherContext, "Mismatched volume context"),
        (Wrong::ConfirmsAnotherCapability, "Unsupported volume capability"),
        (Wrong::ConfirmsOtherParameters, "Mismatched parameters"),
    ] {
        in_own_namespace(move || async move {
            let mistake = Mistake::start(Api::V1, wrong).await;
            let mut request = crate::support::csi::to_create("by another client");
            request
                .parameters
                .insert("profile".to_owned(), "bronze".to_owned());
            let id = mistake
                .fixture
                .plugin
                .csi
                .try_create(request)
                .await
                .unwrap()
                .to_string();
            let mut provider = mistake.provider().await;
            let words = format!("Validation failed for volume '{id}': {words}");
            assert_failed(provider.adopt_disk(&id, "bronze").await, &[&words]);
            mistake.stop().await;
        });
    }
}

async fn a_volume_that_is_listed_twice_is_noticed(api: Api) {
    let mistake = Mistake::start(api, Wrong::ListsTwice).await;
    let id = mistake.fixture.plugin.csi.create("data").await;
    let words = format!("Dropping duplicated volume '{id}' from the discovered resources");
    assert_failed(mistake.fixture.agent.provider().await, &[&words]);
    mistake.stop().await;
}

async fn a_plugin_that_unmounts_when_it_stops_is_noticed(api: Api) {
    let mistake = Mistake::start(api, Wrong::UnmountsAtExit).await;
    let mut provider = mistake.provider().await;
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    let Mistake { fixture, proxy } = mistake;
    proxy.stop().await;
    let words = format!("Target path '{}' not mounted any more", target.display());
    assert_failed(provider.launch(&id).await, &[&words]);
    fixture.plugin.stop().await;
}

async fn a_plugin_that_is_right_is_not_made_wrong_by_what_is_between(api: Api) {
    let mistake = Mistake::start(api, Wrong::Nothing).await;
    let (mut isolator, container) = mistake.task().await;
    isolator.clean_up(&container.id).await.unwrap();
    assert_eq!(Mounts::read().below(&mistake.fixture.agent.work_dir), []);
    assert_eq!(
        mistake.fixture.read_back(&container.volume_id, "file"),
        "precious\n"
    );
    mistake.stop().await;
}
