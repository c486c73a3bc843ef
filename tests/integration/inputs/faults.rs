//! The plan of faults that tests give to `embedded`.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::assert_ends;
use crate::support::eventually;
use crate::support::flocker::settings;
use crate::support::namespace::in_own_namespace;
use crate::support::scratch::Scratch;

#[test]
fn a_plan_of_faults_with_a_mistake_is_wrong_usage() {
    in_own_namespace(|| async {
        let scratch = Scratch::new();
        let plan = scratch.path().join("plan.json");
        let data_dir = format!("--data-dir={}", scratch.path().join("data").display());
        let faults = format!("--faults={}", plan.display());
        let arguments = ["embedded", "--listen=127.0.0.1:0", &data_dir, &faults];
        assert_ends(&arguments, 2, &["plan.json", "No such file"]).await;
        fs::write(&plan, r#"{"nodes": {"7": {"machine": "off"}}}"#).unwrap();
        assert_ends(&arguments, 2, &["plan.json", "node 7 does not exist"]).await;
        fs::write(&plan, r#"{"nodez": {}}"#).unwrap();
        assert_ends(&arguments, 2, &["plan.json", "nodez", "line 1"]).await;
    });
}

#[test]
fn a_plan_of_faults_is_loaded_while_embedded_runs() {
    in_own_namespace(|| async {
        let scratch = Scratch::new();
        let (plan, new) = (scratch.path().join("plan.json"), scratch.path().join("new.json"));
        fs::write(&plan, "{}").unwrap();
        let mut program = Command::new(env!("CARGO_BIN_EXE_flocker-csi"))
            .args(["embedded", "--listen=127.0.0.1:0"])
            .arg(format!("--data-dir={}", scratch.path().join("data").display()))
            .arg(format!("--faults={}", plan.display()))
            .env_clear()
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it starts");
        let address = line.strip_prefix("listening on ").unwrap();
        let settings = settings(address, &scratch.path().join("data/certificates"));
        let client = tokio::task::spawn_blocking(|| flocker_client::Client::new(settings));
        let client = client.await.unwrap().unwrap();
        assert_eq!(client.list_nodes().await.unwrap().len(), 1);

        let broken =
            r#"{"requests": [{"name": "broken", "effect": {"answer": {"status": 503, "body": "{}"}}}]}"#;
        fs::write(&new, broken).unwrap();
        fs::rename(&new, &plan).unwrap();
        eventually("requests fail", async || {
            client.list_nodes().await.err().map(drop)
        })
        .await;
        fs::write(&new, "{}").unwrap();
        fs::rename(&new, &plan).unwrap();
        eventually("they are answered again", async || {
            client.list_nodes().await.ok().map(drop)
        })
        .await;

        let id = Pid::from_raw(program.id().unwrap().cast_signed()).unwrap();
        kill_process(id, Signal::TERM).unwrap();
        assert!(program.wait().await.unwrap().success());
    });
}
