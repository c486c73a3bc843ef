//! Volumes that are stuck: where, since when, why, and what to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, Effect, RequestFault};
use tokio::process::{Child, Command};

use super::Diagnosis;
use super::flocker::{set_agent, with_quick_expiry};
use super::stand_ins::StandIns;
use crate::names::declare;
use crate::node::Fixture;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_lease_of_a_dead_node_is_released_by_the_recommended_command() {
    in_own_namespace(|| async {
        let fixture = with_quick_expiry(2).await;
        let (flocker, flags) = (&fixture.flocker, fixture.machine.flags());
        let stand_ins = StandIns::new(flocker.path());
        let volume = declare(flocker, 1, &[("name", "orders")]).await;
        flocker.reports(1, volume).await;
        let dead = flocker.node(2);
        flocker
            .client()
            .await
            .acquire_lease(volume, dead, None)
            .await
            .unwrap();
        let waits = Diagnosis::of(&flags, &["orders"]).await;
        waits.assert_code(1).assert_check(
            "volume-lease",
            "error",
            &["node 127.0.0.2 (", &dead.to_string(), "this node waits for it"],
        );
        let look = format!("ssh 127.0.0.2 flocker-csi doctor {volume}");
        assert_eq!(waits.command("volume-lease"), look);
        set_agent(flocker, 2, AgentState::Stopped).await;
        let diagnosis = Diagnosis::of(&flags, &["orders"]).await;
        diagnosis.assert_code(1).assert_check(
            "volume-lease",
            "error",
            &[
                &dead.to_string(),
                "which Flocker does not list",
                "no other node can have",
            ],
        );
        assert_eq!(diagnosis.document["volume"]["stuck_in"], "volume-lease");
        let command = diagnosis.command("volume-lease");
        assert_eq!(
            command,
            format!("flocker-csi leases release {volume} --node {dead}")
        );
        let settings = environment(&flags);
        stand_ins
            .run_with(&format!("{command} --yes --takeover-grace 1s"), &settings)
            .await;
        assert_eq!(flocker.leaseholder(volume).await, None);
        Diagnosis::of(&flags, &["orders"]).await.assert_content();
    });
}

/// Starts a process whose working directory is in a volume.
fn sleeping_in(directory: &Path) -> Child {
    let mut command = Command::new("sleep");
    command.arg("600").current_dir(directory).stdin(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}

/// Returns settings as variables, as an operator has them in a shell.
fn environment(flags: &[String]) -> Vec<(String, String)> {
    let variable = |flag: &String| {
        let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap();
        (
            format!("FLOCKER_CSI_{}", name.replace('-', "_").to_uppercase()),
            value.to_owned(),
        )
    };
    flags.iter().map(variable).collect()
}

#[test]
fn a_process_that_keeps_a_volume_from_leaving_is_named_and_ended() {
    in_own_namespace(|| async {
        let fixture = with_quick_expiry(2).await;
        let (flocker, flags) = (&fixture.flocker, fixture.machine.flags());
        let stand_ins = StandIns::new(flocker.path());
        let volume = declare(flocker, 1, &[("name", "orders")]).await;
        flocker.reports(1, volume).await;
        let mut shell = sleeping_in(&flocker.mount_of(1, volume));
        let pid = shell.id().unwrap();
        flocker
            .client()
            .await
            .move_dataset(volume, flocker.node(2))
            .await
            .unwrap();
        let busy = Diagnosis::of(&flags, &["orders"]).await;
        let process = format!("process {pid} (sleep) has its working directory there");
        busy.assert_code(1).assert_check(
            "volume-primary",
            "error",
            &[&process, "127.0.0.2", "cannot leave this node"],
        );
        assert_eq!(busy.document["volume"]["stuck_in"], "volume-primary");
        assert_eq!(busy.command("volume-primary"), format!("kill {pid}"));
        stand_ins.run(&busy.command("volume-primary")).await;
        shell.wait().await.unwrap();
        flocker.reports(2, volume).await;
        Diagnosis::of(&flags, &["orders"]).await.assert_content();
    });
}

#[test]
fn a_read_only_file_system_is_found_and_made_writable() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let flags = fixture.machine.flags();
        let stand_ins = StandIns::new(fixture.flocker.path());
        let usage = fixture.published("orders").await;
        fixture.flocker.reports(1, usage.dataset()).await;
        let mount = fixture.flocker.mount_of(1, usage.dataset());
        stand_ins
            .run(&format!("mount -o remount,ro {}", mount.display()))
            .await;
        let read_only = Diagnosis::of(&flags, &["orders"]).await;
        read_only.assert_code(1).assert_check(
            "volume-file-system",
            "error",
            &["has become read-only", "mounted at"],
        );
        assert!(fs::write(usage.target.join("file"), "data").is_err());
        stand_ins.run(&read_only.command("volume-file-system")).await;
        fs::write(usage.target.join("file"), "data").unwrap();
        Diagnosis::of(&flags, &["orders"]).await.assert_content();
        only_mount_at(&usage.target);
    });
}

#[test]
fn what_uses_a_volume_here_is_shown_and_a_name_that_no_volume_has_is_a_fault() {
    in_own_namespace(|| async {
        let fixture = with_quick_expiry(2).await;
        let flags = fixture.machine.flags();
        let usage = fixture.published("orders").await;
        fixture.flocker.reports(1, usage.dataset()).await;
        let mut task = sleeping_in(&usage.target);
        let process = format!("process {} (sleep)", task.id().unwrap());
        let used = Diagnosis::of(&flags, &["orders"]).await;
        used.assert_content();
        used.assert_check("volume-published", "ok", &[&process]);
        task.kill().await.unwrap();
        let unknown = Diagnosis::of(&flags, &["oders"]).await;
        unknown.assert_code(1).assert_check("volume", "error", &["oders"]);
        assert_eq!(unknown.names("skipped").len(), 7);
        assert_eq!(unknown.document["volume"]["id"], serde_json::Value::Null);

        // The node that shall have it is silent.
        let flocker = &fixture.flocker;
        let elsewhere = declare(flocker, 2, &[("name", "invoices")]).await;
        flocker.reports(2, elsewhere).await;
        set_agent(flocker, 2, AgentState::Stopped).await;
        let silent = Diagnosis::of(&flags, &["invoices"]).await;
        silent.assert_code(1).assert_check(
            "volume-primary",
            "error",
            &[&flocker.node(2).to_string(), "does not report"],
        );
        assert_eq!(
            silent.command("volume-primary"),
            "systemctl restart flocker-dataset-agent"
        );
    });
}

#[test]
fn what_is_wrong_with_a_staging_is_said_with_its_path() {
    in_own_namespace(|| async {
        let fixture = Fixture::start(1).await;
        let flags = fixture.machine.flags();
        let stand_ins = StandIns::new(fixture.flocker.path());
        let usage = fixture.staged("orders").await;
        fixture.flocker.reports(1, usage.dataset()).await;
        let mut shell = sleeping_in(&usage.alias());
        let busy = Diagnosis::of(&flags, &["orders"]).await;
        let process = format!("process {} (sleep)", shell.id().unwrap());
        busy.assert_code(3)
            .assert_check("volume-staged", "warning", &["published nowhere", &process]);
        stand_ins.run(&busy.command("volume-staged")).await;
        shell.wait().await.unwrap();
        Diagnosis::of(&flags, &["orders"]).await.assert_content();

        let staging = usage.staging.to_str().unwrap();
        let elsewhere = Diagnosis::of(&flags, &["orders", "--mount-root=/mnt"]).await;
        elsewhere.assert_code(1).assert_check(
            "volume-mount",
            "error",
            &["which is not in the mount_root /mnt"],
        );
        let [record] = &fixture.machine.records()[..] else {
            panic!("one volume is staged")
        };
        let kept = fs::read(record).unwrap();
        fs::remove_file(record).unwrap();
        let unrecorded = Diagnosis::of(&flags, &["orders"]).await;
        unrecorded
            .assert_code(3)
            .assert_check("volume-staged", "warning", &[staging, "has no record"]);
        fs::write(record, kept).unwrap();
        stand_ins
            .run(&format!("umount {}", usage.alias().display()))
            .await;
        let unmounted = Diagnosis::of(&flags, &["orders"]).await;
        unmounted
            .assert_code(1)
            .assert_check("volume-staged", "error", &[staging, "it is not mounted"]);
        assert_eq!(unmounted.document["volume"]["stuck_in"], "volume-staged");
    });
}

#[test]
fn a_volume_whose_lease_another_node_has_is_stuck_since_its_staging_began() {
    in_own_namespace(|| async {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let flocker = Flocker::with(|options| Options {
            nodes: 2,
            eras: [(1, boot_id.trim().parse().unwrap())].into(),
            ..options
        })
        .await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("orders").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        flocker.reports(1, volume).await;
        let usage = machine.usage("orders", volume, &context);
        // It is killed before it has read that the lease is still its own.
        let faults = flocker.embedded().faults();
        faults.add(RequestFault::new("held", Effect::HoldRequest).on("GET", "/v1/configuration/leases"));
        let begun = eventually("the staging has begun", async || {
            let records = machine.records();
            let is_whole = |file: &PathBuf| file.extension().is_some_and(|end| end == "json");
            records.into_iter().find(is_whole)
        });
        tokio::select! {
            staged = plugin.csi.stage(&usage) => panic!("{staged:?}"),
            _record = begun => {}
        }
        plugin.kill().await;
        faults.clear();
        let client = flocker.client().await;
        client.release_lease(volume).await.unwrap();
        client.acquire_lease(volume, flocker.node(2), None).await.unwrap();
        let waits = Diagnosis::of(&machine.flags(), &["orders"]).await;
        waits.assert_code(1).assert_check(
            "volume-lease",
            "error",
            &["node 127.0.0.2 (", "this node waits for it"],
        );
        let document = &waits.document["volume"];
        assert_eq!(document["stuck_in"], "volume-lease");
        assert!(document["since"].as_str().unwrap().ends_with('Z'), "{document}");
        waits.assert_check(
            "volume-staged",
            "warning",
            &["has begun and is not complete (recorded at"],
        );
    });
}
