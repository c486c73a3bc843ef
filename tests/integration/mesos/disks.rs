//! The life of the disks that a resource provider offers.

use host_fs::mount::testing::unmount;
use std::fs;

use flocker_client::NewDataset;
use sys_mount::{FilesystemType, Mount};
use uuid::Uuid;

use super::agent::{Agent, CAPACITY, MIB, profiles};
use super::provider::{Changes, Disk, Kind, Profile};
use super::proxy::{Proxy, Wrong};
use super::types::{Api, Capability};
use super::volume_state::State;
use super::{Fixture, LOOK, PUBLISH, START, UNPUBLISH, assert_failed, both, calls};
use crate::support::flocker::Flocker;
use crate::support::mounts::{Mounts, only_mount_at};

both!(
    a_provider_without_room_offers_nothing,
    a_pool_is_offered_when_its_profile_appears_and_goes_with_it,
    a_disk_is_created_from_a_pool_and_destroyed,
    a_disk_has_exactly_the_size_that_was_taken_from_the_pool,
    a_disk_is_published_once_for_all_its_tasks_and_stays_so,
    a_disk_whose_volume_could_not_be_published_is_destroyed,
    a_disk_with_something_mounted_in_its_volume_is_not_destroyed,
    a_volume_that_was_there_before_becomes_a_disk,
    datasets_that_other_clients_create_and_delete_are_seen_at_the_next_read,
    providers_offer_the_volumes_of_their_own_nodes,
);

impl Fixture {
    /// Makes a dataset on a node without the plugin, and returns its id when it exists.
    async fn preprovisioned(&self, number: usize, bytes: i64) -> Uuid {
        let new = NewDataset {
            dataset_id: None,
            primary: self.flocker.node(number),
            maximum_size: Some(bytes.cast_unsigned()),
            metadata: [("name".to_owned(), "by hand".to_owned())].into(),
        };
        let made = self.flocker.client().await.create_dataset(&new).await.unwrap();
        self.flocker.reports(number, made.dataset_id).await;
        made.dataset_id
    }
}

/// Returns the offered resource of a volume that no framework uses.
fn raw(id: &str, bytes: i64) -> Disk {
    Disk {
        kind: Kind::Raw,
        id: Some(id.to_owned()),
        profile: None,
        bytes,
        metadata: [].into(),
    }
}

/// Covers `StorageLocalResourceProviderTest.NoResource`.
async fn a_provider_without_room_offers_nothing(api: Api) {
    let fixture = Fixture::start(api).await;
    for _ in 0..2 {
        // No pool is declared for that profile.
        let provider = fixture.agent.provider_with(profiles(&["iron"])).await.unwrap();
        assert_eq!(provider.offers(), []);
        assert_eq!(provider.calls(), calls(&[&START, &LOOK]));
    }
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.ProfileAppeared` and `ProfileDisappeared`.
async fn a_pool_is_offered_when_its_profile_appears_and_goes_with_it(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider_with([].into()).await.unwrap();
    assert_eq!(provider.offers(), []);
    assert_eq!(provider.calls(), START);

    provider.set_profiles(profiles(&["bronze"])).await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY);
    let disk = provider.create_disk("bronze", 100 * MIB).await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY - 100 * MIB);

    // The operator has replaced it by another profile: the pool is removed, the disk stays.
    provider.set_profiles(profiles(&["gold"])).await.unwrap();
    assert_eq!((provider.pool("bronze"), provider.pool("gold")), (0, CAPACITY));
    assert_failed(
        provider.create_disk("bronze", 100 * MIB).await,
        &["Profile 'bronze' not found"],
    );
    assert_eq!(provider.disk(&disk).bytes, 100 * MIB);
    provider.destroy_disk(&disk).await.unwrap();
    assert_eq!(
        provider.offers().len(),
        1,
        "nothing but the pool of the new profile"
    );
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.CreateDestroyDisk`, with the capacity of each profile as it is offered.
async fn a_disk_is_created_from_a_pool_and_destroyed(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture
        .agent
        .provider_with(profiles(&["bronze", "gold"]))
        .await
        .unwrap();
    let look = ["ListVolumes", "GetCapacity", "GetCapacity"];
    assert_eq!(provider.calls(), calls(&[&START, &look]));
    let bytes = 100 * MIB;
    let id = provider.create_disk("bronze", bytes).await.unwrap();
    assert_eq!(provider.calls(), calls(&[&["CreateVolume"], &look]));
    let disk = Disk {
        kind: Kind::Mount,
        profile: Some("bronze".to_owned()),
        ..raw(&id, bytes)
    };
    assert_eq!(provider.disk(&id), disk);
    assert_eq!(provider.pool("bronze"), CAPACITY - bytes);
    assert_eq!(provider.pool("gold"), CAPACITY);
    assert_eq!(provider.offers().len(), 3);

    assert_failed(
        provider.create_disk("bronze", CAPACITY).await,
        &["RESOURCE_EXHAUSTED", "bronze"],
    );
    assert_eq!(
        provider.calls(),
        calls(&[&["CreateVolume"], &look]),
        "it is not repeated"
    );

    provider.destroy_disk(&id).await.unwrap();
    assert_eq!(provider.calls(), calls(&[&["DeleteVolume"], &look]));
    assert_eq!(provider.pool("bronze"), CAPACITY);
    assert_eq!(provider.offers().len(), 2);
    assert_eq!(provider.manager.tracked(), Vec::<&str>::new());
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.SmallDisk` as far as Flocker has small disks: scalars of Mesos are MiB with
/// three decimals.
async fn a_disk_has_exactly_the_size_that_was_taken_from_the_pool(api: Api) {
    let mut fixture = Fixture::start(api).await;
    let odd = 100 * MIB + 512 * 1024;
    let mut provider = fixture.agent.provider().await.unwrap();
    assert_failed(
        provider.create_disk("bronze", odd).await,
        &[
            "OUT_OF_RANGE",
            "exactly 105381888 bytes",
            "multiples of 1048576 bytes",
        ],
    );
    assert_failed(provider.create_disk("bronze", MIB).await, &["OUT_OF_RANGE"]);
    fixture.plugin.stop().await;

    // The operator chooses loop devices, which can have any size.
    fixture.agent.machine.config.plugin.allocation_unit = 1024;
    fixture.plugin = fixture.agent.machine.plugin().await;
    let mut provider = fixture.agent.provider().await.unwrap();
    for bytes in [odd, 64 * MIB + 1024] {
        let id = provider.create_disk("bronze", bytes).await.unwrap();
        assert_eq!(provider.disk(&id).bytes, bytes);
        assert_eq!(provider.pool("bronze"), CAPACITY - bytes);
        assert_eq!(
            fixture.agent.provider().await.unwrap().offers(),
            provider.offers()
        );
        provider.destroy_disk(&id).await.unwrap();
    }
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.ROOT_CreateDestroyPersistentMountVolume`.
async fn a_disk_is_published_once_for_all_its_tasks_and_stays_so(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    provider.calls();
    let target = provider.launch(&id).await.unwrap();
    assert_eq!(provider.calls(), calls(&[&["ControllerPublishVolume"], &PUBLISH]));
    only_mount_at(&target);
    fs::write(target.join("file"), "precious").unwrap();
    // The task ends, which makes no call, and further tasks start.
    for _ in 0..3 {
        assert_eq!(provider.launch(&id).await.unwrap(), target);
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "precious");
    }
    assert_eq!(provider.calls(), Vec::<&str>::new());
    assert_eq!(provider.reconcile().await.unwrap(), Changes::default());

    provider.destroy(&id).unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0);
    provider.calls();
    provider.destroy_disk(&id).await.unwrap();
    let destroyed = ["ControllerUnpublishVolume", "DeleteVolume"];
    assert_eq!(provider.calls(), calls(&[&UNPUBLISH, &destroyed, &LOOK]));
    assert!(!target.parent().unwrap().exists());
    assert_eq!(Mounts::read().below(&fixture.agent.work_dir), []);
    assert_eq!(provider.pool("bronze"), CAPACITY);
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.DestroyUnpublishedPersistentVolume`, `…WithRecovery` and `…WithReboot`.
async fn a_disk_whose_volume_could_not_be_published_is_destroyed(api: Api) {
    let flocker = Flocker::start(1).await;
    let mut agent = Agent::new(&flocker, 1, api);
    let mut plugin = agent.process().await;
    let proxy = Proxy::start(&agent.machine, api, Wrong::KnowsNoPublish);
    agent.endpoint = proxy.endpoint.clone();
    for (recovered, rebooted) in [(false, false), (true, false), (true, true)] {
        let mut provider = agent.provider().await.unwrap();
        let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
        assert_failed(
            provider.launch(&id).await,
            &["Failed to publish resources", "UNIMPLEMENTED"],
        );
        assert_eq!(provider.manager.volume(&id).state, State::NodePublish);
        if rebooted {
            plugin.kill().await;
            agent.reboot(&flocker);
            plugin = agent.process().await;
        }
        if recovered {
            provider = agent.provider().await.unwrap();
        }
        provider.destroy(&id).unwrap();
        provider.calls();
        provider.destroy_disk(&id).await.unwrap();
        let destroyed = ["ControllerUnpublishVolume", "DeleteVolume"];
        // After a reboot there is nothing to unpublish or unstage.
        let undone: &[_] = if rebooted { &[] } else { &UNPUBLISH };
        assert_eq!(provider.calls(), calls(&[undone, &destroyed, &LOOK]));
        assert!(!provider.manager.target(&id).exists());
        assert_eq!(provider.pool("bronze"), CAPACITY);
    }
    proxy.stop().await;
    plugin.kill().await;
}

/// Covers `StorageLocalResourceProviderTest.ROOT_DestroyPersistentMountVolumeFailed`.
async fn a_disk_with_something_mounted_in_its_volume_is_not_destroyed(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    let id = provider.create_disk("bronze", 64 * MIB).await.unwrap();
    let target = provider.launch(&id).await.unwrap();
    let inside = target.join("busy");
    fs::create_dir(&inside).unwrap();
    Mount::builder()
        .fstype(FilesystemType::from("tmpfs"))
        .mount("tmpfs", &inside)
        .unwrap();
    let busy = [
        "Failed to remove persistent volume",
        &id,
        "Device or resource busy",
    ];
    assert_failed(provider.destroy(&id), &busy);
    assert_failed(
        provider.destroy_disk(&id).await,
        &["Failed to clean up volume", &id, "Device or resource busy"],
    );
    only_mount_at(&target);

    unmount(&inside);
    provider.destroy(&id).unwrap();
    provider.destroy_disk(&id).await.unwrap();
    assert_eq!(Mounts::read().below(&fixture.agent.work_dir), []);
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.CreateDestroyPreprovisionedVolume`.
async fn a_volume_that_was_there_before_becomes_a_disk(api: Api) {
    let fixture = Fixture::start(api).await;
    let (adopted, unwanted) = (
        fixture.preprovisioned(1, 80 * MIB).await.to_string(),
        fixture.preprovisioned(1, 64 * MIB).await.to_string(),
    );
    let mut plain = profiles(&["bronze"]);
    let nothing = Profile {
        capability: Capability::writer(),
        parameters: [].into(),
    };
    plain.insert("plain".to_owned(), nothing);
    let mut provider = fixture.agent.provider_with(plain).await.unwrap();
    assert_eq!(provider.disk(&adopted), raw(&adopted, 80 * MIB));
    assert_eq!(provider.disk(&unwanted), raw(&unwanted, 64 * MIB));

    if api == Api::V1 {
        // The other version has no parameters to compare.
        assert_failed(
            provider.adopt_disk(&adopted, "bronze").await,
            &[
                "Cannot apply profile 'bronze'",
                "Validation failed for volume",
                "no profile",
            ],
        );
    }
    provider.calls();
    provider.adopt_disk(&adopted, "plain").await.unwrap();
    assert_eq!(provider.calls(), ["ValidateVolumeCapabilities"]);
    let target = provider.launch(&adopted).await.unwrap();
    fs::write(target.join("file"), "precious").unwrap();
    provider.calls();

    // A disk that is not destroyed as a persistent volume first is emptied with its volume.
    provider.destroy_disk(&adopted).await.unwrap();
    provider.destroy_disk(&unwanted).await.unwrap();
    let look = ["ListVolumes", "GetCapacity", "GetCapacity"];
    let destroyed = ["ControllerUnpublishVolume", "DeleteVolume"];
    assert_eq!(
        provider.calls(),
        calls(&[&UNPUBLISH, &destroyed, &look, &["DeleteVolume"], &look])
    );
    assert_eq!(provider.offers().len(), 1, "nothing but the pool");
    fixture.plugin.stop().await;
}

/// Covers `StorageLocalResourceProviderTest.Update`.
async fn datasets_that_other_clients_create_and_delete_are_seen_at_the_next_read(api: Api) {
    let fixture = Fixture::start(api).await;
    let mut provider = fixture.agent.provider().await.unwrap();
    assert_eq!(provider.reconcile().await.unwrap(), Changes::default());
    let made = fixture.preprovisioned(1, 64 * MIB).await;
    let disk = raw(&made.to_string(), 64 * MIB);
    let changes = provider.reconcile().await.unwrap();
    assert_eq!((changes.added, changes.removed), (vec![disk.clone()], vec![]));
    assert_eq!(provider.reconcile().await.unwrap(), Changes::default());

    fixture.flocker.client().await.delete_dataset(made).await.unwrap();
    let changes = provider.reconcile().await.unwrap();
    assert_eq!((changes.added, changes.removed), (vec![], vec![disk]));

    // A volume of another provider takes space from the pool of this node.
    let other = fixture.plugin.csi.clone();
    let mut request = crate::support::csi::to_create("elsewhere");
    request
        .parameters
        .insert("profile".to_owned(), "bronze".to_owned());
    other.try_create(request).await.unwrap();
    provider.reconcile().await.unwrap();
    assert_eq!(provider.pool("bronze"), CAPACITY - 64 * MIB);
    fixture.plugin.stop().await;
}

/// Every agent offers all volumes that its plugin lists; see also `StorageLocalResourceProviderTest.Update`.
async fn providers_offer_the_volumes_of_their_own_nodes(api: Api) {
    let fixture = Fixture::start(api).await;
    let second = Agent::new(&fixture.flocker, 2, api);
    let plugin = second.machine.plugin().await;
    let here = fixture.preprovisioned(1, 64 * MIB).await.to_string();
    let there = fixture.preprovisioned(2, 80 * MIB).await.to_string();
    let mut one = fixture.agent.provider().await.unwrap();
    let mut two = second.provider().await.unwrap();
    assert_eq!((one.offers().len(), two.offers().len()), (2, 2));
    assert_eq!(one.disk(&here), raw(&here, 64 * MIB));
    assert_eq!(two.disk(&there), raw(&there, 80 * MIB));

    let created = one.create_disk("bronze", 100 * MIB).await.unwrap();
    assert_eq!(two.reconcile().await.unwrap(), Changes::default());
    assert_eq!(
        (one.pool("bronze"), two.pool("bronze")),
        (CAPACITY - 100 * MIB, CAPACITY)
    );
    let target = one.launch(&created).await.unwrap();
    only_mount_at(&target);
    fixture.plugin.stop().await;
    plugin.stop().await;
}
