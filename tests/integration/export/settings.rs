//! The settings of the command.

use std::fmt::Write;
use std::fs;
use std::process::Stdio;

use serde_json::json;
use tokio::time::timeout;

use super::{reached, run, volume};
use crate::names::declare;
use crate::support::PATIENCE;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;
use crate::support::process::program;

#[test]
fn export_reads_flockers_address_from_the_plugins_configuration_file() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let dataset = declare(&flocker, 1, &[("name", "pg")]).await;
        let file = flocker.path().join("flocker-csi.toml");
        // With settings that only the plugin needs, and its name; the name space is that of its volumes' names.
        let mut text =
            "namespace = \"x\"\nmode = \"node\"\ndriver_name = \"flocker.example.com\"\n".to_owned();
        for (variable, value) in reached(&flocker) {
            let key = variable.trim_start_matches("FLOCKER_CSI_").to_lowercase();
            writeln!(text, "{key} = {value:?}").unwrap();
        }
        text += "[[pool]]\ncapacity = \"1TiB\"\n";
        fs::write(&file, &text).unwrap();
        let config = format!("--config={}", file.display());
        let ended = run(program(&["export", "--from=flocker", &config]), "").await;
        let objects = ended.objects(&[]);
        let csi = json!({"driver": "flocker.example.com", "volumeHandle": dataset.to_string()});
        assert_eq!(objects[0]["spec"]["csi"], csi);

        fs::write(&file, text.replace("mode", "mood")).unwrap();
        let ended = run(program(&["export", "--from=flocker", &config]), "").await;
        ended.assert_refused(2, &[&["line 2", "unknown key \"mood\""]]);
    });
}

#[test]
fn output_and_exit_code_are_the_same_without_a_stderr() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        declare(&flocker, 1, &[("name", "My_DB")]).await;
        for (item, code, volumes) in [("My_DB", 0, 1), ("unknown", 1, 0)] {
            let mut program = program(&["export", "--from=flocker", item]);
            let full = fs::File::create("/dev/full").unwrap();
            program
                .envs(reached(&flocker))
                .stdout(Stdio::piped())
                .stderr(full);
            let ended = program.spawn().unwrap().wait_with_output();
            let ended = timeout(PATIENCE, ended).await.unwrap().unwrap();
            let written = String::from_utf8(ended.stdout).unwrap();
            assert_eq!(ended.status.code(), Some(code), "{written}");
            assert_eq!(
                written.matches("kind: PersistentVolume\n").count(),
                volumes,
                "{written}"
            );
        }
    });
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        declare(&flocker, 1, &[("name", "pg")]).await;
        let mut program = program(&["export", "--from=flocker", "pg"]);
        let full = fs::File::create("/dev/full").unwrap();
        program
            .envs(reached(&flocker))
            .stdout(full)
            .stderr(Stdio::piped());
        let ended = program.spawn().unwrap().wait_with_output();
        let ended = timeout(PATIENCE, ended).await.unwrap().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(
            said.contains("cannot write to the standard output: No space left"),
            "{said}"
        );
    });
}

#[test]
fn a_wrong_command_line_and_an_unreachable_flocker_have_different_exit_codes() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let reached = reached(&flocker);
        let one = flocker.path().join("pv.yaml");
        fs::write(&one, volume("pg", &json!({"datasetName": "pg"})).to_string()).unwrap();
        let one = one.display().to_string();
        let export = |arguments: &[&str]| {
            let mut program = program(&["export"]);
            program.args(arguments).envs(reached.clone());
            run(program, "")
        };
        for arguments in [
            &["--from=kubernetes-pv"][..],
            &["--from=kubernetes-pv", &one, &one],
        ] {
            export(arguments).await.assert_refused(2, &[&["takes one file"]]);
        }
        for (arguments, part) in [
            (
                &["--from=docker"][..],
                "[possible values: kubernetes-pv, flocker]",
            ),
            (
                &["--from=flocker", "--driver-name=1"],
                "expected a name like a domain's",
            ),
            (&["--from=flocker", "--claim"], "--claims"),
            (
                &["--from=flocker", "--claims="],
                "expected the name of a namespace",
            ),
            (&["--from=flocker", "--storage-class=A b"], "not a name"),
        ] {
            let ended = export(arguments).await;
            assert_eq!((ended.code, ended.text.as_str()), (Some(2), ""), "{ended:?}");
            assert!(ended.said.iter().any(|said| said.contains(part)), "{ended:?}");
        }
        let missing = flocker.path().join("missing").display().to_string();
        export(&["--from=kubernetes-pv", &missing])
            .await
            .assert_refused(1, &[&["cannot read", &missing]]);
        export(&["--from=flocker", &format!("--user-cert={missing}")])
            .await
            .assert_refused(2, &[&[&missing, "does not exist"]]);
        flocker.stop().await;
        for arguments in [&["--from=flocker"][..], &["--from=kubernetes-pv", &one]] {
            export(arguments)
                .await
                .assert_refused(1, &[&["cannot read", "Flocker", "refused"]]);
        }
    });
}
