//! The mount table as Flocker's agent and kubelet read it.

use std::fs;

use rustix::io::Errno;

use super::{Fixture, agent_unmounts, wait_until_agent_unmounts};
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

#[test]
fn the_agent_finds_every_published_volume_where_it_has_mounted_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let client = fixture.flocker.client().await;
        for name in ["one", "two", "three"] {
            let usage = fixture.published(name).await;
            fixture.csi().publish(&usage.at_target("again")).await.unwrap();
            let path = fixture.flocker.mount_of(1, usage.dataset());
            let flockers = only_mount_at(&path);
            assert!(flockers.source.starts_with("/dev/loop"), "{flockers:?}");
            assert_ne!(only_mount_at(&usage.target).source, flockers.source);
            let mounts = Mounts::read();
            assert_eq!(mounts.seen_by_the_agent()[&*flockers.source], path);

            fixture.flocker.reports(1, usage.dataset()).await;
            let states = client.list_dataset_states().await.unwrap();
            let state = states.iter().find(|state| state.dataset_id == usage.dataset());
            assert_eq!(state.unwrap().path, Some(path));
            fixture.csi().unpublish(&usage.at_target("again")).await.unwrap();
        }
    });
}

#[test]
fn the_agent_cannot_unmount_a_volume_before_it_is_unstaged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let path = fixture.flocker.mount_of(1, usage.dataset());
        assert_eq!(agent_unmounts(&path), Err(Errno::BUSY));
        csi.unpublish(&usage).await.unwrap();
        assert_eq!(agent_unmounts(&path), Err(Errno::BUSY), "it is staged");
        csi.unstage(&usage).await.unwrap();
        wait_until_agent_unmounts(&path).await;
    });
}

#[test]
fn a_move_waits_for_the_volume_to_be_unstaged_even_without_a_lease() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(2).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        let other = fixture.attached("other").await;
        let (client, second) = (fixture.flocker.client().await, fixture.flocker.node(2));
        fs::write(usage.target.join("file"), "precious").unwrap();

        // Both must move and have no lease; that the free one has moved shows that the agents have tried.
        for dataset in [usage.dataset(), other.dataset()] {
            client.release_lease(dataset).await.unwrap();
            client.move_dataset(dataset, second).await.unwrap();
        }
        fixture.flocker.reports(2, other.dataset()).await;
        fixture.flocker.reports(1, usage.dataset()).await;
        only_mount_at(&fixture.flocker.mount_of(1, usage.dataset()));
        assert!(
            Mounts::read()
                .at(&fixture.flocker.mount_of(2, usage.dataset()))
                .is_empty()
        );
        fs::write(usage.target.join("more"), "still writable").unwrap();

        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        fixture.flocker.reports(2, usage.dataset()).await;
        let moved = fixture.flocker.mount_of(2, usage.dataset());
        assert_eq!(fs::read_to_string(moved.join("file")).unwrap(), "precious");
        assert_eq!(fs::read_to_string(moved.join("more")).unwrap(), "still writable");
        assert_eq!(
            Mounts::read().at(&fixture.flocker.mount_of(1, usage.dataset())),
            []
        );
    });
}

#[test]
fn kubelet_finds_no_other_use_of_a_staging_path_and_can_remove_it() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.published("data").await);
        csi.publish(&usage.at_target("again")).await.unwrap();
        assert_eq!(Mounts::read().seen_by_kubelet(&usage.staging), []);
        assert_eq!(
            Mounts::read().seen_by_kubelet(&usage.alias()).len(),
            3,
            "it would find Flocker's mount and the targets if the volume were mounted at the path itself"
        );
        csi.unpublish(&usage.at_target("again")).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
        assert_eq!(Mounts::read().seen_by_kubelet(&usage.staging), []);
        csi.unstage(&usage).await.unwrap();
        fs::remove_dir(&usage.staging).unwrap();
    });
}

#[test]
fn a_fresh_volume_is_let_out_only_when_the_agent_has_finished_it() {
    in_own_namespace(|| async {
        use std::os::unix::fs::PermissionsExt;

        let fixture = Fixture::start(1).await;
        for name in ["one", "two", "three"] {
            let usage = fixture.published(name).await;
            assert_eq!(fs::read_dir(&usage.target).unwrap().count(), 0, "no lost+found");
            let mode = fs::metadata(&usage.target).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o777);
        }
    });
}
