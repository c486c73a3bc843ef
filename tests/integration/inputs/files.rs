//! Settings and files, through the program itself.

use std::fs;
use std::path::PathBuf;

use flocker_embedded::CertificateProfile;
use flocker_embedded::pki::{Authority, Identity, Role};
use tempfile::TempDir;
use uuid::Uuid;

use super::{assert_ends, with};

/// The files that a plugin reads, and the settings that name them.
struct Files {
    directory: TempDir,
    authority: Authority,
    user: Identity,
}

impl Files {
    fn new() -> Self {
        let authority = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        let user = authority.issue(&Role::User("plugin".to_owned())).unwrap();
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            authority,
            user,
        };
        files.write("cluster.crt", &files.authority.certificate().to_pem().unwrap());
        files.write("plugin.crt", &files.user.certificate_pem().unwrap());
        files.write("plugin.key", &files.user.key_pem().unwrap());
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> String {
        fs::write(self.path(name), content).unwrap();
        self.path(name).display().to_string()
    }

    fn flags(&self) -> Vec<String> {
        let path = |name| self.path(name).display().to_string();
        vec![
            "--control-service=https://127.0.0.1:1".to_owned(),
            format!("--endpoint=unix://{}", path("csi.sock")),
            format!("--cluster-cert={}", path("cluster.crt")),
            format!("--user-cert={}", path("plugin.crt")),
            format!("--user-key={}", path("plugin.key")),
            format!("--state-dir={}", path("state")),
        ]
    }

    /// Starts the plugin with some settings replaced, which it refuses.
    async fn assert_refused(&self, replaced: &[&str], parts: &[&str]) {
        let flags = self.flags();
        for check in [None, Some("--check-config")] {
            let arguments: Vec<_> = with(&flags, replaced).into_iter().chain(check).collect();
            assert_ends(&arguments, 2, parts).await;
        }
        assert!(!self.path("state").exists() && !self.path("csi.sock").exists());
    }
}

#[tokio::test]
async fn valid_files_are_accepted() {
    let files = Files::new();
    let flags = files.flags();
    let arguments: Vec<_> = with(&flags, &["--check-config"]);
    assert_ends(&arguments, 0, &[]).await;
}

#[tokio::test]
async fn unusable_certificates_are_reported_before_anything_is_served() {
    let files = Files::new();
    let stranger = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
    let pem = stranger.certificate().to_pem().unwrap();
    let foreign = files.write("foreign.crt", &pem);
    files
        .assert_refused(
            &[&format!("--cluster-cert={foreign}")],
            &[
                "plugin.crt",
                "not signed by the cluster certificate",
                "different clusters",
            ],
        )
        .await;

    let node = files.authority.issue(&Role::Node(Uuid::new_v4())).unwrap();
    let certificate = files.write("node.crt", &node.certificate_pem().unwrap());
    let key = files.write("node.key", &node.key_pem().unwrap());
    files
        .assert_refused(
            &[
                &format!("--user-cert={certificate}"),
                &format!("--user-key={key}"),
            ],
            &[
                "node.crt",
                "a node's certificate",
                "user-NAME",
                "flocker-ca create-api-certificate",
            ],
        )
        .await;
    files
        .assert_refused(
            &[&format!("--user-key={key}")],
            &["node.key", "does not belong to the user certificate"],
        )
        .await;

    // Other problems of an expired certificate are no less reasons.
    let role = Role::User("plugin".to_owned());
    let expired = stranger.issue_for(&role, &(-2..-1)).unwrap();
    let certificate = files.write("expired.crt", &expired.certificate_pem().unwrap());
    let key = files.write("expired.key", &expired.key_pem().unwrap());
    files
        .assert_refused(
            &[
                &format!("--user-cert={certificate}"),
                &format!("--user-key={key}"),
            ],
            &["expired.crt", "not signed by the cluster certificate"],
        )
        .await;
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named() {
    let files = Files::new();
    fs::create_dir(files.path("directory")).unwrap();
    let garbage = files.write("garbage", b"certainly not PEM");
    let directory = files.path("directory").display().to_string();
    let missing = files.path("missing").display().to_string();
    for (flag, kind) in [
        ("--cluster-cert", "cluster certificate"),
        ("--user-cert", "user certificate"),
        ("--user-key", "user key"),
    ] {
        for (path, problem) in [
            (&missing, "does not exist"),
            (&directory, "cannot be read"),
            (&garbage, "not in PEM form"),
        ] {
            let replaced = format!("{flag}={path}");
            files.assert_refused(&[&replaced], &[kind, path, problem]).await;
        }
    }
}

#[tokio::test]
async fn unknown_settings_and_wrong_values_are_named_with_the_accepted_ones() {
    let files = Files::new();
    let file = |text: &str| format!("--config={}", files.write("config.toml", text.as_bytes()));
    let rows: [(&str, &[&str]); 6] = [
        (
            "contol_service = \"https://h\"",
            &["contol_service", "control_service"],
        ),
        ("default_sise = \"1GiB\"", &["default_sise", "default_size"]),
        ("default_size = \"1MiB\"", &["default_size", "1MiB", "64"]),
        ("mode = \"al\"", &["mode", "al", "controller"]),
        ("mode = 3", &["mode"]),
        ("mode = ", &["config.toml"]),
    ];
    for (text, parts) in rows {
        files.assert_refused(&[&file(text)], parts).await;
    }
    let rows: [(&str, &[&str]); 6] = [
        ("--modus=all", &["--modus", "--mode"]),
        ("--mode=some", &["--mode", "some", "controller"]),
        (
            "--control-service=http://h",
            &["--control-service", "http", "https"],
        ),
        ("--node-id=one", &["--node-id", "one", "UUID"]),
        ("--takeover-grace=soon", &["--takeover-grace", "soon"]),
        ("--log-format=yaml", &["--log-format", "yaml", "json"]),
    ];
    for (flag, parts) in rows {
        files.assert_refused(&[flag], parts).await;
    }
    assert_ends(&["serve"], 2, &["control-service"]).await;
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_listened_on_is_refused_with_the_accepted_forms() {
    let files = Files::new();
    let long = format!("unix:///tmp/{}.sock", "x".repeat(120));
    let rows: [(&str, &[&str]); 4] = [
        (&long, &["130 bytes", "107"]),
        ("tcp://10.0.0.1:9000", &["10.0.0.1", "loopback"]),
        ("http://127.0.0.1:9000", &["\"http\"", "unix:///"]),
        ("unix:///tmp/", &["directory"]),
    ];
    for (endpoint, parts) in rows {
        let flag = format!("--endpoint={endpoint}");
        files.assert_refused(&[&flag], parts).await;
    }
}

#[tokio::test]
async fn a_tcp_endpoint_is_refused_until_a_setting_accepts_that_it_authenticates_no_client() {
    let files = Files::new();
    let tcp = "--endpoint=tcp://127.0.0.1:0";
    let parts = [
        "tcp://127.0.0.1:0",
        "no client is authenticated",
        "allow_unauthenticated_tcp",
    ];
    files.assert_refused(&[tcp], &parts).await;
    let refused = "--allow-unauthenticated-tcp=false";
    files.assert_refused(&[tcp, refused], &parts).await;
    let data_dir = format!("--data-dir={}", files.path("data").display());
    for check in [None, Some("--check-config")] {
        let arguments: Vec<_> = ["standalone", &data_dir, tcp].into_iter().chain(check).collect();
        assert_ends(&arguments, 2, &parts).await;
    }
    assert!(!files.path("data").exists());
    let flags = files.flags();
    let accepted = [tcp, "--allow-unauthenticated-tcp", "--check-config"];
    assert_ends(&with(&flags, &accepted), 0, &[]).await;
}
