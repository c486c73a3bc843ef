//! Certificates that change while the plugin runs.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use flocker_client::{ClientSettings, Credentials};
use flocker_csi::commands::serve::services::Part;
use flocker_csi::flocker::cluster::{self, CertificateKeeper, Cluster, FileCheck, Lists};
use flocker_embedded::CertificateProfile;
use flocker_embedded::faults::{Effect, RequestFault};
use flocker_embedded::pki::{Authority, Role};
use futures::FutureExt;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::kubelet::probes::{PROBES, address, becomes};
use crate::kubelet::readiness::{Said, serves};
use crate::log::Log;
use crate::support::csi::to_create;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::namespace::in_own_namespace;
use crate::support::process::run;

/// The health of a plugin that has not reached Flocker since its start, as a certificate is not valid. A restart helps nothing.
const NO_CERTIFICATE: &[(Part, bool)] = &[
    (Part::Plugin, true),
    (Part::Controller, false),
    (Part::Node, false),
];

/// The three files of a plugin, in a directory of their own.
struct Files {
    cluster: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// The content of a user's two files.
struct User {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    /// Copies the files of `flocker`.
    fn of(flocker: &Flocker) -> Self {
        let directory = flocker.path().join("plugin");
        fs::create_dir(&directory).unwrap();
        let copy = |name: &str| {
            let file = directory.join(name);
            fs::copy(flocker.embedded().certificates().join(name), &file).unwrap();
            file
        };
        Self {
            cluster: copy("cluster.crt"),
            certificate: copy("plugin.crt"),
            key: copy("plugin.key"),
        }
    }

    fn write(&self, user: &User) {
        fs::write(&self.certificate, &user.certificate).unwrap();
        fs::write(&self.key, &user.key).unwrap();
    }

    fn load(&self) -> Credentials {
        Credentials::load(&self.cluster, &self.certificate, &self.key).unwrap()
    }

    fn cluster(&self, flocker: &Flocker) -> Cluster {
        let settings = ClientSettings {
            credentials: self.load(),
            ..flocker.settings()
        };
        Cluster::new(cluster::Flocker::new(settings), Duration::from_secs(180))
    }
}

fn user_of(authority: &Authority, name: &str) -> User {
    let issued = authority.issue(&Role::User(name.to_owned())).unwrap();
    User {
        certificate: issued.certificate_pem().unwrap(),
        key: issued.key_pem().unwrap(),
    }
}

/// Returns a new user of the cluster of `flocker`.
fn new_user(flocker: &Flocker, name: &str) -> User {
    user_of(flocker.embedded().authority(), name)
}

async fn assert_works(cluster: &Cluster) {
    cluster.fresh(Lists::NODES).await.unwrap();
}

async fn check_is(keeper: &mut CertificateKeeper, times: usize, expected: FileCheck) {
    for _ in 0..times {
        assert_eq!(keeper.check().await, expected);
    }
}

#[test]
fn replaced_certificates_are_in_use_from_the_next_connection_on() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        assert_works(&cluster).await;
        check_is(&mut keeper, 3, FileCheck::Unchanged).await;
        let before = flocker.embedded().counters();

        files.write(&new_user(&flocker, "successor"));
        check_is(&mut keeper, 1, FileCheck::Replaced).await;
        check_is(&mut keeper, 3, FileCheck::Unchanged).await;
        assert_eq!(cluster.credentials().user(), "successor");
        assert_works(&cluster).await;
        let after = flocker.embedded().counters();
        assert_eq!(after.connections - before.connections, 1, "and it is used again");
    });
}

#[test]
fn new_certificates_are_used_only_once_flocker_itself_has_answered_to_them() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        let before = cluster.credentials();
        files.write(&new_user(&flocker, "successor"));
        for (status, body) in [
            (403, "RBAC: access denied"),
            (502, "<html>Bad Gateway</html>"),
            (200, "{}"),
        ] {
            let answer = Effect::Answer {
                status,
                body: body.to_owned(),
            };
            let faults = flocker.embedded().faults();
            faults.add(RequestFault::new("proxy", answer).on("GET", "/v1/version"));
            check_is(&mut keeper, 1, FileCheck::Kept).await;
            assert!(cluster.credentials().same_as(&before), "{status}");
            faults.clear();
        }
        check_is(&mut keeper, 1, FileCheck::Replaced).await;
        assert_eq!(cluster.credentials().user(), "successor");
    });
}

#[test]
fn files_with_only_a_new_timestamp_cost_no_connection() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        assert_works(&cluster).await;
        let before = flocker.embedded().counters();
        let same = fs::read(&files.certificate).unwrap();
        fs::remove_file(&files.certificate).unwrap();
        fs::write(&files.certificate, same).unwrap();
        check_is(&mut keeper, 2, FileCheck::Unchanged).await;
        assert_works(&cluster).await;
        assert_eq!(flocker.embedded().counters().connections, before.connections);
    });
}

#[test]
fn a_check_that_a_stop_of_the_plugin_cancels_changes_nothing() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        files.write(&new_user(&flocker, "successor"));
        let stopped = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = stopped.handle().clone();
        stopped.shutdown_background();
        let checked = {
            let _entered = handle.enter();
            cluster.certificate_keeper().check().now_or_never()
        };
        assert_eq!(checked, Some(FileCheck::Unchanged));
        assert_eq!(cluster.credentials().user(), "plugin");
    });
}

#[test]
fn a_certificate_without_its_key_is_ignored_and_logged_once() {
    in_own_namespace(|| async {
        let (log, _logging) = Log::begin();
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        let new = new_user(&flocker, "successor");

        fs::write(&files.certificate, &new.certificate).unwrap();
        check_is(&mut keeper, 3, FileCheck::Kept).await;
        assert_works(&cluster).await;
        fs::write(&files.key, &new.key[..new.key.len() / 2]).unwrap();
        check_is(&mut keeper, 3, FileCheck::Kept).await;
        assert_works(&cluster).await;
        assert_eq!(cluster.credentials().user(), "plugin");
        let logged = log.lines_with("stay in use");
        assert_eq!(logged.len(), 2, "once for each problem: {logged:?}");
        assert!(
            logged[0].contains("does not belong to the user certificate"),
            "{logged:?}"
        );
        assert!(
            logged
                .iter()
                .all(|line| line.contains(files.key.to_str().unwrap())),
            "{logged:?}"
        );

        fs::write(&files.key, &new.key).unwrap();
        check_is(&mut keeper, 1, FileCheck::Replaced).await;
        assert_eq!(cluster.credentials().user(), "successor");
        assert_works(&cluster).await;
    });
}

#[test]
fn certificates_that_vanish_or_are_damaged_leave_the_last_good_ones_in_use() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        fs::remove_file(&files.certificate).unwrap();
        check_is(&mut keeper, 2, FileCheck::Kept).await;
        fs::write(&files.certificate, "no certificate").unwrap();
        check_is(&mut keeper, 2, FileCheck::Kept).await;
        assert_works(&cluster).await;
        files.write(&new_user(&flocker, "successor"));
        check_is(&mut keeper, 1, FileCheck::Replaced).await;
    });
}

/// They belong together, so only the control service can detect that they are wrong.
#[test]
fn certificates_of_another_cluster_are_tried_once_and_not_used() {
    in_own_namespace(|| async {
        let (log, _logging) = Log::begin();
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        assert_works(&cluster).await;
        let ours = fs::read(&files.cluster).unwrap();

        let stranger = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        fs::write(&files.cluster, stranger.certificate().to_pem().unwrap()).unwrap();
        files.write(&user_of(&stranger, "plugin"));
        let before = flocker.embedded().counters();
        check_is(&mut keeper, 5, FileCheck::Kept).await;
        assert_works(&cluster).await;
        let after = flocker.embedded().counters();
        assert_eq!(
            after.connections - before.connections,
            1,
            "they are tried once a minute at most"
        );
        let logged = log.lines_with("stay in use");
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert!(logged[0].contains("different clusters"), "{logged:?}");

        fs::write(&files.cluster, ours).unwrap();
        files.write(&new_user(&flocker, "successor"));
        check_is(&mut keeper, 1, FileCheck::Replaced).await;
        assert_works(&cluster).await;
    });
}

#[test]
fn new_certificates_wait_for_a_flocker_that_is_down() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        files.write(&new_user(&flocker, "successor"));
        flocker.stop().await;
        check_is(&mut keeper, 2, FileCheck::Kept).await;
        assert_eq!(cluster.credentials().user(), "plugin");
    });
}

#[test]
fn the_days_until_certificates_expire_are_known() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let credentials = Files::of(&flocker).cluster(&flocker).credentials();
        let day = Duration::from_secs(86_400);
        let end = credentials.not_after();
        for (now, left) in [
            (end - day * 30, 30),
            (end - day * 30 + Duration::from_secs(1), 29),
            (end, 0),
            (end + Duration::from_secs(1), -1),
            (end + day * 2, -3),
        ] {
            assert_eq!(credentials.days_left(now), left, "{now:?}");
        }
        assert!(credentials.days_left(SystemTime::now()) > 365);
    });
}

#[test]
fn certificates_that_expire_soon_are_warned_of_once_a_day() {
    in_own_namespace(|| async {
        let (log, _logging) = Log::begin();
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let cluster = files.cluster(&flocker);
        let mut keeper = cluster.certificate_keeper();
        check_is(&mut keeper, 2, FileCheck::Unchanged).await;
        assert_eq!(log.lines_with("expire in").len(), 0);

        let authority = flocker.embedded().authority();
        let brief = authority
            .issue_for(&Role::User("brief".to_owned()), &(-1..12))
            .unwrap();
        files.write(&User {
            certificate: brief.certificate_pem().unwrap(),
            key: brief.key_pem().unwrap(),
        });
        check_is(&mut keeper, 1, FileCheck::Replaced).await;
        check_is(&mut keeper, 3, FileCheck::Unchanged).await;
        let logged = log.lines_with("expire in");
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert!(
            logged[0].contains("in 11 days") && logged[0].contains("WARN"),
            "{logged:?}"
        );
    });
}

/// Returns the machine of node 1, whose plugin uses these files.
fn machine_with(flocker: &Flocker, files: &Files) -> Machine {
    let mut machine = Machine::new(flocker, 1);
    machine.config.flocker.cluster_cert.clone_from(&files.cluster);
    machine.config.flocker.user_cert.clone_from(&files.certificate);
    machine.config.flocker.user_key.clone_from(&files.key);
    machine
}

#[test]
fn a_running_plugin_loads_new_certificates_without_a_restart() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let machine = machine_with(&flocker, &files);
        let plugin = machine.process(&[]).await;
        files.write(&new_user(&flocker, "successor"));
        eventually("the new certificates are in use", async || {
            plugin
                .log()
                .contains("of user successor are in use")
                .then_some(())
        })
        .await;
        plugin.csi.create("after").await;
    });
}

/// What is mounted here is unmounted without Flocker, and a lease that cannot be released yet is released later.
#[test]
fn a_plugin_with_an_expired_certificate_unmounts_and_works_again_once_it_is_replaced() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let machine = machine_with(&flocker, &files);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        // The lease is the node's own, as without a controller.
        let usage = machine.usage("data", volume, &HashMap::new());
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        fs::write(usage.target.join("row"), "kept").unwrap();
        assert_eq!(flocker.leaseholder(volume).await, Some(machine.node()));
        plugin.kill().await;

        let authority = flocker.embedded().authority();
        let outside = |days: std::ops::Range<i64>| {
            let issued = authority
                .issue_for(&Role::User("plugin".to_owned()), &days)
                .unwrap();
            files.write(&User {
                certificate: issued.certificate_pem().unwrap(),
                key: issued.key_pem().unwrap(),
            });
        };
        let certificate = files.certificate.display().to_string();
        let assert_names = |status: &Status, words: &str| {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            let expected = format!("{certificate} {words}");
            assert!(status.message().contains(&expected), "{status:?}");
        };
        outside(1..2);
        let plugin = machine.process(&[]).await;
        let refused = plugin.csi.try_create(to_create("early")).await.unwrap_err();
        assert_names(&refused, "is not valid before");
        plugin.kill().await;

        outside(-2..-1);
        let flags = machine.flags();
        let mut arguments = vec!["serve", "--check-config"];
        arguments.extend(flags.iter().map(String::as_str));
        let (ended, said) = run(&arguments).await;
        assert_eq!(ended.code(), Some(2), "{said}");
        assert!(said.contains(&format!("{certificate} expired on")), "{said}");

        let plugin = machine.process(&[PROBES]).await;
        let probes = address(&plugin).await;
        let what = format!("{certificate} expired on");
        becomes(
            probes,
            503,
            &format!("failed  certificates: the user certificate {what}"),
        )
        .await;
        for (part, expected) in NO_CERTIFICATE {
            serves(&plugin, *part, *expected).await;
        }
        plugin.logged("No request can be sent to Flocker").await;
        let refused = plugin.csi.try_create(to_create("late")).await.unwrap_err();
        assert_names(&refused, "expired on");
        let stats = plugin.csi.stats(&usage).await.unwrap();
        assert!(!stats.usage.is_empty(), "{stats:?}");
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert!(Mounts::read().below(&machine.path("staging")).is_empty());
        assert_eq!(flocker.leaseholder(volume).await, Some(machine.node()));

        files.write(&new_user(&flocker, "successor"));
        becomes(probes, 200, "ok      certificates: valid").await;
        eventually("the lease is released", async || {
            flocker.leaseholder(volume).await.is_none().then_some(())
        })
        .await;
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("row")).unwrap(), "kept");
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        assert_eq!(flocker.leaseholder(volume).await, None);
    });
}

/// The certificate of the cluster may expire before the plugin's own: then Flocker's own is trusted no longer.
#[test]
fn a_plugin_with_an_expired_cluster_certificate_says_so_and_works_again_once_it_is_replaced() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let files = Files::of(&flocker);
        let valid = fs::read(&files.cluster).unwrap();
        let expired = flocker.embedded().authority().own_for(&(-2..-1)).unwrap();
        fs::write(&files.cluster, expired.to_pem().unwrap()).unwrap();
        let machine = machine_with(&flocker, &files);
        let plugin = machine.process(&[PROBES]).await;
        Said {
            readyz: (503, "failed  certificates: the cluster certificate "),
            healthz: 200,
            health: NO_CERTIFICATE,
            log: "No request can be sent to Flocker",
        }
        .by(
            &plugin,
            address(&plugin).await,
            "the cluster's certificate has expired",
        )
        .await;
        let refused = plugin.csi.try_create(to_create("late")).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        let expected = format!("{} expired on", files.cluster.display());
        assert!(refused.message().contains(&expected), "{refused:?}");

        fs::write(&files.cluster, valid).unwrap();
        becomes(address(&plugin).await, 200, "ok      certificates: valid").await;
        for (part, _) in NO_CERTIFICATE {
            serves(&plugin, *part, true).await;
        }
        plugin.csi.create("after").await;
    });
}
