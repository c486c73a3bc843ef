//! File systems that do not answer.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use flocker_csi::config::PluginConfig;
use flocker_embedded::faults::{Effect, RequestFault};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tonic::Code;

use super::fuse::{Answers, Server};
use crate::kubelet::probes::{becomes, get};
use crate::monitoring::{free_address, shows};
use crate::node::{Fixture, agent_unmounts, assert_refused, wait_until_agent_unmounts};
use crate::support::csi::{Usage, within};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// A published volume whose file system has no block device, as with ZFS, but a server.
struct Served {
    fixture: Fixture,
    usage: Usage,
    server: Server,
    flockers: PathBuf,
}

impl Served {
    async fn start() -> Self {
        let served = Self::attached().await;
        served.fixture.csi().stage(&served.usage).await.unwrap();
        served.fixture.csi().publish(&served.usage).await.unwrap();
        served
    }

    /// As [`Self::start`], but not staged yet.
    async fn attached() -> Self {
        Self::with(|_| {}).await
    }

    /// As [`Self::attached`], with changed settings of the plugin.
    async fn with(change: impl FnOnce(&mut PluginConfig)) -> Self {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        change(&mut machine.config.plugin);
        machine.config.node.mount_root = machine.path("flocker");
        // In place of ZFS, which this machine need not have.
        machine.config.node.agent_file_systems = vec!["fuse".to_owned()];
        let fixture = Fixture::on(machine, flocker).await;
        let usage = fixture.attached("data").await;
        let flockers = fixture.machine.path("flocker").join(&usage.volume_id);
        fs::create_dir_all(&flockers).unwrap();
        // Flocker reports where it has mounted the volume, so that the plugin accepts the mount as Flocker's.
        let mounted = Effect::Answer {
            status: 200,
            body: format!(
                r#"[{{"dataset_id":"{}","maximum_size":67108864,"primary":"{}","path":"{}"}}]"#,
                usage.volume_id,
                fixture.machine.node(),
                flockers.display()
            ),
        };
        let rule = RequestFault::new("mounted", mounted).on("GET", "/v1/state/datasets");
        fixture.flocker.embedded().faults().add(rule);
        let server = Server::mount(&flockers, Answers::Everything);
        Self {
            fixture,
            usage,
            server,
            flockers,
        }
    }
}

#[test]
fn a_file_system_that_does_not_report_its_usage_is_abnormal_and_can_be_unstaged() {
    in_own_namespace(|| async {
        let served = Served::start().await;
        let (fixture, usage) = (&served.fixture, &served.usage);
        let stats = fixture.csi().stats(usage).await.unwrap();
        assert_eq!(stats.usage[0].total, 1000 * 4096);
        assert!(!stats.volume_condition.unwrap().abnormal);

        served.server.answers(Answers::AllButUsage);
        for _ in 0..2 {
            let stats = fixture.csi().stats(usage).await.unwrap();
            assert!(stats.usage.is_empty());
            fixture
                .assert_abnormal(
                    usage,
                    &[usage.target.to_str().unwrap(), "has not answered for", "may hang"],
                )
                .await;
        }
        let again = usage.at_target("again");
        fixture.csi().publish(&again).await.unwrap();
        fixture.csi().unpublish(&again).await.unwrap();
        // A process that still waits for an answer uses Flocker's mount, which the plugin does not unmount.
        fixture.clean_up(usage).await;
        assert_eq!(Mounts::read().below(&fixture.machine.path("targets")), []);
        assert_eq!(agent_unmounts(&served.flockers), Err(Errno::BUSY));
        served.server.answers(Answers::Everything);
        wait_until_agent_unmounts(&served.flockers).await;
    });
}

#[test]
fn a_volume_that_does_not_answer_shows_in_the_metrics_and_makes_the_node_unready() {
    in_own_namespace(|| async {
        let at = free_address();
        let served = Served::with(|plugin| plugin.metrics_address = Some(at)).await;
        let (fixture, usage) = (&served.fixture, &served.usage);
        fixture.csi().stage(usage).await.unwrap();
        fixture.csi().publish(usage).await.unwrap();
        let answers = r#"volumes_abnormal{reason="not_answering"}"#;
        shows(at, &[(answers, 0.0), ("volumes_published", 1.0)]).await;
        becomes(at, 200, "ok      file_systems: ").await;

        served.server.answers(Answers::Nothing);
        fixture.assert_abnormal(usage, &["has not answered for"]).await;
        // The metrics are answered all the same, and without another question to the file system.
        shows(
            at,
            &[
                (answers, 1.0),
                ("volumes_staged", 1.0),
                ("volumes_published", 1.0),
            ],
        )
        .await;
        becomes(
            at,
            503,
            "failed  file_systems: the file systems of 1 volumes do not answer",
        )
        .await;
        let (_, body) = get(at, "/readyz").await;
        assert!(body.contains(&usage.volume_id), "{body}");
        assert_eq!(get(at, "/healthz").await.0, 200, "a restart would not help");

        served.server.answers(Answers::Everything);
        shows(at, &[(answers, 0.0)]).await;
        becomes(at, 200, "ok      file_systems: ").await;
        fixture.clean_up(usage).await;
    });
}

#[test]
fn a_file_system_that_stopped_answering_can_be_published_and_unstaged() {
    in_own_namespace(|| async {
        let served = Served::start().await;
        let (fixture, usage) = (&served.fixture, &served.usage);
        served.server.answers(Answers::Nothing);
        fixture
            .assert_abnormal(usage, &["has not answered for", "may hang"])
            .await;
        let again = usage.at_target("again");
        fixture.csi().publish(&again).await.unwrap();
        fixture.csi().unpublish(&again).await.unwrap();
        fixture.clean_up(usage).await;
    });
}

#[test]
fn a_file_system_whose_server_died_is_abnormal_and_can_be_unstaged() {
    in_own_namespace(|| async {
        let served = Served::start().await;
        let (fixture, usage) = (&served.fixture, &served.usage);
        served.server.die();
        fixture
            .assert_abnormal(
                usage,
                &["cannot get the usage of", usage.target.to_str().unwrap()],
            )
            .await;
        fixture.clean_up(usage).await;
    });
}

#[test]
fn staging_a_file_system_that_does_not_answer_ends_with_its_caller_and_leaves_nothing() {
    in_own_namespace(|| async {
        let served = Served::attached().await;
        let (fixture, usage) = (&served.fixture, &served.usage);
        served.server.answers(Answers::Nothing);
        let request = within(Duration::from_secs(2), usage.to_stage());
        assert_refused(
            fixture.csi().node().node_stage_volume(request).await,
            Code::DeadlineExceeded,
            &[
                &usage.volume_id,
                "\"mounted here\"",
                served.flockers.to_str().unwrap(),
                "or its device does not answer",
            ],
        );
        fixture.csi().unstage(usage).await.unwrap();
        assert_eq!(fs::read_dir(&usage.staging).unwrap().count(), 0);
        assert!(fixture.machine.records().is_empty());
        served.server.answers(Answers::Everything);
        fixture.csi().stage(usage).await.unwrap();
        only_mount_at(&usage.alias());
    });
}

#[test]
fn a_foreign_file_system_that_hangs_or_died_is_named_like_any_other() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let (csi, usage) = (fixture.csi(), fixture.staged("data").await);
        fs::create_dir(&usage.target).unwrap();
        let server = Server::mount(&usage.target, Answers::Nothing);
        for dead in [false, true] {
            if dead {
                server.die();
            }
            let named: &[&str] = &[&usage.volume_id, usage.target.to_str().unwrap(), "fuse of served"];
            for answer in [csi.publish(&usage).await, csi.unpublish(&usage).await] {
                assert_refused(answer, Code::FailedPrecondition, named);
            }
            assert_refused(csi.stats(&usage).await, Code::NotFound, named);
            assert_eq!(only_mount_at(&usage.target).source, "served");
        }
        unmount(&usage.target, UnmountFlags::DETACH).unwrap();
        csi.publish(&usage).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
    });
}
