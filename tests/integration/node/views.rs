//! One staging path seen through several mounts: bind mounts of the kubelet's directory show it at other paths.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use flocker_embedded::faults::{Effect, RequestFault};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};

use super::{Fixture, wait_until_agent_unmounts};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

impl Fixture {
    /// Makes another view of the staging paths, and returns the usage as it is seen through that.
    fn view_of(&self, usage: &Usage) -> Usage {
        let (staging, view) = (self.machine.path("staging"), self.machine.path("view"));
        fs::create_dir_all(&view).unwrap();
        mount_bind_recursive(&staging, &view).unwrap();
        Usage {
            staging: view.join(usage.staging.strip_prefix(&staging).unwrap()),
            ..usage.clone()
        }
    }

    /// Stages a volume for which the node takes the lease.
    async fn staged_by_the_node(&self, name: &str) -> Usage {
        let volume = self.csi().create(name).await;
        let usage = self.machine.usage(name, volume, &HashMap::new());
        self.csi().stage(&usage).await.unwrap();
        assert_eq!(
            self.flocker.leaseholder(volume).await,
            Some(self.machine.node()),
            "{name}"
        );
        usage
    }

    fn flockers(&self, usage: &Usage) -> PathBuf {
        self.flocker.mount_of(1, usage.dataset())
    }

    /// Checks that nothing of the volume is left, and that the agent may have it.
    async fn assert_all_given_back(&self, usage: &Usage) {
        assert_eq!(self.flocker.leaseholder(usage.dataset()).await, None);
        assert!(self.machine.records().is_empty() && self.machine.devices().is_empty());
        assert!(!usage.alias().exists());
        let mut mounts = Mounts::read().below(&self.machine.path(""));
        mounts.retain(|mount| mount.source.ends_with(&usage.volume_id));
        assert_eq!(mounts, []);
        wait_until_agent_unmounts(&self.flockers(usage)).await;
    }
}

#[test]
fn unstaging_through_another_view_of_the_path_ends_the_staging() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = fixture.staged_by_the_node("data").await;
        let view = fixture.view_of(&usage);
        only_mount_at(&view.alias());
        fixture.csi().unstage(&view).await.unwrap();
        fixture.assert_all_given_back(&usage).await;
        fixture.csi().unstage(&usage).await.unwrap();
    });
}

#[test]
fn unstaging_through_a_view_ends_a_staging_whose_path_no_longer_leads_there() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let volume = fixture.csi().create("data").await;
        let usage = fixture.machine.usage("data", volume, &HashMap::new());
        // It is staged through the view, which then goes, and unstaged by the path that remains.
        let view = fixture.view_of(&usage);
        fixture.csi().stage(&view).await.unwrap();
        only_mount_at(&usage.alias());
        let mount_of_view = fixture.machine.path("view");
        // Otherwise the mounts in the view would go at the other path too.
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(&mount_of_view, private).unwrap();
        unmount(&mount_of_view, UnmountFlags::DETACH).unwrap();
        only_mount_at(&usage.alias());
        fixture.csi().unstage(&usage).await.unwrap();
        fixture.assert_all_given_back(&usage).await;
    });
}

#[test]
fn a_staging_elsewhere_that_is_mounted_keeps_the_lease_when_a_view_of_another_is_unstaged() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = fixture.staged_by_the_node("one").await;
        let other = fixture.machine.usage("two", usage.dataset(), &HashMap::new());
        fixture.csi().stage(&other).await.unwrap();
        let view = fixture.view_of(&usage);
        fixture.csi().unstage(&view).await.unwrap();
        only_mount_at(&other.alias());
        let holder = fixture.flocker.leaseholder(usage.dataset()).await;
        assert_eq!(holder, Some(fixture.machine.node()));
        super::agent_unmounts(&fixture.flockers(&usage)).unwrap_err();
        fixture.csi().unstage(&other).await.unwrap();
        fixture.assert_all_given_back(&usage).await;
    });
}

#[test]
fn a_staging_elsewhere_that_has_begun_keeps_the_lease_when_the_last_mount_goes() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = fixture.staged_by_the_node("one").await;
        let volume = usage.dataset();
        let other = fixture.machine.usage("two", volume, &HashMap::new());
        let faults = fixture.flocker.embedded().faults();
        let broken = Effect::Answer {
            status: 500,
            body: "\"broken\"".to_owned(),
        };
        faults.add(RequestFault::new("failing", broken).on("GET", "/v1/configuration/datasets"));
        let staging = fixture.csi().stage(&other);
        let meanwhile = async {
            eventually("the other staging has begun", async || {
                (fixture.machine.records().len() == 2).then_some(())
            })
            .await;
            fixture.csi().unstage(&usage).await.unwrap();
            let holder = fixture.flocker.leaseholder(volume).await;
            assert_eq!(holder, Some(fixture.machine.node()));
            faults.clear();
        };
        let (staged, ()) = futures::join!(staging, meanwhile);
        if staged.is_err() {
            fixture.csi().stage(&other).await.unwrap();
        }
        fixture.csi().unstage(&other).await.unwrap();
        fixture.assert_all_given_back(&usage).await;
    });
}

#[test]
fn a_repeated_unstaging_through_a_view_ends_what_a_killed_one_had_unmounted() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let usage = fixture.staged_by_the_node("data").await;
        let view = fixture.view_of(&usage);
        // As a plugin leaves it that is killed right after the unmount.
        host_fs::mount::testing::unmount(view.alias());
        assert_eq!(Mounts::read().at(&usage.alias()), []);
        fixture.csi().unstage(&view).await.unwrap();
        fixture.assert_all_given_back(&usage).await;
    });
}
