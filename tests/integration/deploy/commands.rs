//! Runs the shipped command lines.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use flocker_embedded::CertificateProfile;
use flocker_embedded::pki::{Authority, Role};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

use super::together::{command_lines, source_of};
use super::tree::{Parsed, Tree, repository};
use crate::support::flocker::Flocker;
use crate::support::process::{Process, program};

/// Certificates as an operator installs them on every agent.
struct Certificates(TempDir);

impl Certificates {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        let user = authority.issue(&Role::User("plugin".to_owned())).unwrap();
        for (name, content) in [
            ("cluster.crt", authority.certificate().to_pem().unwrap()),
            ("plugin.crt", user.certificate_pem().unwrap()),
            ("plugin.key", user.key_pem().unwrap()),
        ] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let for_root = Permissions::from_mode(0o600);
        fs::set_permissions(directory.path().join("plugin.key"), for_root).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

/// Returns a shipped command line, without the program, for the files of the repository.
fn here(parsed: &Parsed, arguments: &[String]) -> Command {
    let here = |argument: &String| match argument.strip_prefix("--config=") {
        Some(path) => {
            let source = source_of(parsed, path).unwrap_or_else(|| panic!("{path} is installed"));
            format!("--config={}", repository().join(source).display())
        }
        None => argument.clone(),
    };
    let arguments: Vec<_> = arguments.iter().map(here).collect();
    program(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Starts the plugin by the command line in a shipped file, on a node of an embedded Flocker, by its number.
///
/// The environment overrides settings that differ on this machine, as Mesos uses it for the endpoint.
pub(super) async fn start(parsed: &Parsed, file: &str, flocker: &Flocker, number: usize) -> Process {
    let lines = command_lines(parsed);
    let line = lines.iter().find(|(from, _, _, _)| from == file);
    let (_, _, _, arguments) = line.unwrap_or_else(|| panic!("{file} has a command line"));
    let node = &flocker.embedded().nodes()[number - 1];
    let directory = flocker.path().join(format!("agent-{number}"));
    fs::create_dir(&directory).unwrap();
    let certificates = flocker.embedded().certificates();
    let mut program = here(parsed, arguments);
    program
        .env(
            "CSI_ENDPOINT",
            format!("unix://{}", directory.join("endpoint.sock").display()),
        )
        .env(
            "FLOCKER_CSI_CONTROL_SERVICE",
            format!("https://{}", flocker.embedded().address()),
        )
        .env("FLOCKER_CSI_CLUSTER_CERT", certificates.join("cluster.crt"))
        .env("FLOCKER_CSI_USER_CERT", certificates.join("plugin.crt"))
        .env("FLOCKER_CSI_USER_KEY", certificates.join("plugin.key"))
        .env("FLOCKER_CSI_NODE_ID", node.uuid.to_string())
        .env("FLOCKER_CSI_MOUNT_ROOT", &node.mount_root)
        .env("FLOCKER_CSI_STATE_DIR", directory.join("state"))
        .env("FLOCKER_CSI_DEVICE_DIR", directory.join("devices"))
        .env("FLOCKER_CSI_ACCEPT_UNVERIFIED_PROPAGATION", "true");
    let started = Process::attempt(program, &directory.join("plugin.log")).await;
    started.unwrap_or_else(|said| panic!("{said}"))
}

/// Runs a command line with `--check-config`.
async fn check(parsed: &Parsed, arguments: &[String], certificates: &Certificates) -> (Option<i32>, String) {
    let mut program = here(parsed, arguments);
    program
        .arg("--check-config")
        .env("FLOCKER_CSI_CLUSTER_CERT", certificates.path("cluster.crt"))
        .env("FLOCKER_CSI_USER_CERT", certificates.path("plugin.crt"))
        .env("FLOCKER_CSI_USER_KEY", certificates.path("plugin.key"))
        .env("FLOCKER_CSI_NODE_ID_FILE", certificates.path("none"))
        // One that exists, as on a machine with Flocker.
        .env("FLOCKER_CSI_MOUNT_ROOT", certificates.path(""));
    let ended = program.stdin(Stdio::null()).output().await.unwrap();
    (ended.status.code(), String::from_utf8(ended.stderr).unwrap())
}

#[tokio::test]
async fn every_command_line_for_mesos_passes_check_config() {
    let (parsed, _) = Tree::shipped().parse();
    let certificates = Certificates::new();
    let lines = command_lines(&parsed);
    let files: Vec<_> = lines.iter().map(|(file, _, _, _)| file.as_str()).collect();
    assert_eq!(
        files,
        [
            "deploy/mesos/resource-providers/flocker.json",
            "deploy/mesos/csi-plugins-managed/flocker.json",
            "deploy/mesos/systemd/flocker-csi-mesos.service",
        ]
    );
    for (file, _, _, arguments) in &lines {
        let (code, said) = check(&parsed, arguments, &certificates).await;
        assert_eq!((code, said.as_str()), (Some(0), ""), "{file}");
    }
}

#[tokio::test]
async fn a_command_line_without_serve_or_with_another_flag_does_not_pass() {
    let (parsed, _) = Tree::shipped().parse();
    let certificates = Certificates::new();
    let (_, _, _, line) = command_lines(&parsed).remove(0);
    let without_serve = &line[1..];
    let mistyped = [line.clone(), vec!["--list-scop=node".to_owned()]].concat();
    for (arguments, part) in [(without_serve, "--config"), (&mistyped, "--list-scop")] {
        let (code, said) = check(&parsed, arguments, &certificates).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(part), "{said}");
    }
}
