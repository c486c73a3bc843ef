//! Volumes that are stuck: where, since when, why, and what to do.

use std::fs;
use std::process::Stdio;

use flocker_embedded::faults::AgentState;
use tokio::process::Command;

use super::Diagnosis;
use super::flocker::{set_agent, with_quick_expiry};
use super::stand_ins::StandIns;
use crate::names::declare;
use crate::node::Fixture;
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
        set_agent(flocker, 2, AgentState::Stopped).await;
        let diagnosis = Diagnosis::of(&flags, &["orders"]).await;
        diagnosis.assert_code(1).assert_check(
            "volume-lease",
            "error",
            &[
                &dead.to_string(),
                "which Flocker does not list",
                "does not report",
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
        let mut shell = Command::new("sleep")
            .arg("600")
            .current_dir(flocker.mount_of(1, volume))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
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
        let mut task = Command::new("sleep")
            .arg("600")
            .current_dir(&usage.target)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
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
    });
}
