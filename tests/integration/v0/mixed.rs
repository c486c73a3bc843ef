//! Callers of both versions on one volume, as after an orchestrator was upgraded or downgraded.

use std::fs;

use futures::future::join_all;

use super::{Old, assert_empty};
use crate::node::Fixture;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

#[test]
fn volumes_staged_and_published_in_one_version_are_found_unchanged_in_the_other() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (new, old) = (fixture.csi(), Old::beside(fixture.csi()));
        let usage = fixture.attached("data").await;
        old.stage(&usage).await.unwrap();
        let alias = only_mount_at(&usage.alias());
        new.stage(&usage).await.unwrap();
        old.stage(&usage).await.unwrap();
        assert_eq!(only_mount_at(&usage.alias()), alias);
        assert_eq!(fixture.machine.records().len(), 1);

        new.publish(&usage).await.unwrap();
        let target = only_mount_at(&usage.target);
        old.publish(&usage).await.unwrap();
        new.publish(&usage).await.unwrap();
        assert_eq!(only_mount_at(&usage.target), target);
        old.unpublish(&usage).await.unwrap();
        assert_empty(&usage.target);
        old.unstage(&usage).await.unwrap();
        new.unstage(&usage).await.unwrap();
        assert_empty(&usage.staging);
        assert!(fixture.machine.records().is_empty());
    });
}

#[test]
fn an_upgraded_or_downgraded_orchestrator_unpublishes_earlier_volumes() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (new, old) = (fixture.csi(), Old::beside(fixture.csi()));
        let usage = fixture.staged("data").await;

        // Downgraded: the directory that the plugin made stays, for the orchestrator to remove.
        new.publish(&usage).await.unwrap();
        fs::write(usage.target.join("file"), "precious").unwrap();
        old.unpublish(&usage).await.unwrap();
        assert_empty(&usage.target);

        // Upgraded: the plugin removes the directory that the orchestrator made.
        old.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        new.unpublish(&usage).await.unwrap();
        assert!(!usage.target.exists());
        old.unpublish(&usage).await.unwrap();

        new.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("file")).unwrap(), "precious");
        new.unpublish(&usage).await.unwrap();
        assert!(!usage.target.exists());
        assert_eq!(Mounts::read().at(&usage.target), []);
    });
}

#[test]
fn calls_of_both_versions_at_the_same_time_make_one_mount_and_leave_none() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (new, old) = (fixture.csi(), Old::beside(fixture.csi()));
        let usage = fixture.attached("data").await;
        let all = |answers: Vec<_>| {
            for answer in answers {
                let (one, other): (Result<(), tonic::Status>, Result<(), tonic::Status>) = answer;
                one.unwrap();
                other.unwrap();
            }
        };
        let staged = (0..5).map(|_| async { tokio::join!(new.stage(&usage), old.stage(&usage)) });
        all(join_all(staged).await);
        only_mount_at(&usage.alias());
        fs::create_dir(&usage.target).unwrap();
        let published = (0..5).map(|_| async { tokio::join!(new.publish(&usage), old.publish(&usage)) });
        all(join_all(published).await);
        only_mount_at(&usage.target);
        let unpublished =
            (0..5).map(|_| async { tokio::join!(new.unpublish(&usage), old.unpublish(&usage)) });
        all(join_all(unpublished).await);
        assert_eq!(Mounts::read().at(&usage.target), []);
        assert!(!usage.target.exists(), "the newer version removes it");
        let unstaged = (0..5).map(|_| async { tokio::join!(new.unstage(&usage), old.unstage(&usage)) });
        all(join_all(unstaged).await);
        assert_empty(&usage.staging);
        assert_eq!(Mounts::read().below(&fixture.machine.path("")), []);
    });
}
