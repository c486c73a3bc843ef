//! A secret in every place where none belongs: the values of unknown or wrong flags, variables, keys, contexts, parameters and
//! mount flags. No answer and no line of the log may repeat it, at any level.

use std::collections::HashMap;

use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::{
    CreateVolumeRequest, ListVolumesRequest, NodeStageVolumeRequest, ValidateVolumeCapabilitiesRequest,
};
use tonic::Status;

use crate::support::csi::{capability, to_create, with_flags};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::program;

const CANARY: &str = "c4n4ryS3CRET";

fn pairs(pairs: &[(&str, String)]) -> HashMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

#[test]
fn no_answer_and_no_log_repeats_what_a_caller_gave_for_something_unknown() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine
            .process(&["--log=trace", "--create-on-first-use=true"])
            .await;
        let mut refusals: Vec<Status> = Vec::new();
        let flags = [
            format!("user=bob%{CANARY}"),
            format!("auto={CANARY}"),
            format!("bind={CANARY}"),
            format!("password:{CANARY}"),
            format!("data:{CANARY}"),
            format!("x-note={CANARY}"),
            CANARY.to_owned(),
            format!("ro,{CANARY}"),
        ];
        for (number, flag) in flags.iter().enumerate() {
            let capability = with_flags(Mode::SingleNodeWriter, &[flag]);
            let request = CreateVolumeRequest {
                volume_capabilities: vec![capability.clone()],
                ..to_create(&format!("v{number}"))
            };
            refusals.extend(plugin.csi.controller().create_volume(request).await.err());
            let request = NodeStageVolumeRequest {
                volume_id: "named".to_owned(),
                staging_target_path: machine.path("staging").display().to_string(),
                volume_capability: Some(capability),
                ..Default::default()
            };
            refusals.extend(plugin.csi.node().node_stage_volume(request).await.err());
        }
        for (key, value) in [("passwd", CANARY.to_owned()), ("profil", CANARY.to_owned())] {
            let request = CreateVolumeRequest {
                parameters: pairs(&[(key, value)]),
                ..to_create("wrong")
            };
            refusals.push(plugin.csi.controller().create_volume(request).await.unwrap_err());
        }
        for key in [
            "flocker.create",
            "flocker.size",
            "flocker.password",
            "flocker_size",
        ] {
            let request = NodeStageVolumeRequest {
                volume_id: "named".to_owned(),
                staging_target_path: machine.path("staging").display().to_string(),
                volume_capability: Some(capability(Mode::SingleNodeWriter)),
                volume_context: pairs(&[(key, CANARY.to_owned())]),
                publish_context: pairs(&[("password", CANARY.to_owned())]),
                ..Default::default()
            };
            refusals.push(plugin.csi.node().node_stage_volume(request).await.unwrap_err());
        }
        let volume = plugin.csi.create("good").await;
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: volume.to_string(),
            volume_context: pairs(&[("password", CANARY.to_owned())]),
            volume_capabilities: vec![with_flags(Mode::SingleNodeWriter, &[CANARY])],
            parameters: pairs(&[("password", CANARY.to_owned())]),
            secrets: pairs(&[("password", CANARY.to_owned())]),
            ..Default::default()
        };
        match plugin
            .csi
            .controller()
            .validate_volume_capabilities(request)
            .await
        {
            Ok(answer) => assert!(!answer.into_inner().message.contains(CANARY)),
            Err(refused) => refusals.push(refused),
        }
        let request = ListVolumesRequest {
            starting_token: CANARY.to_owned(),
            ..Default::default()
        };
        refusals.push(plugin.csi.controller().list_volumes(request).await.unwrap_err());
        for refused in &refusals {
            assert!(!refused.message().contains(CANARY), "{refused:?}");
        }
        assert!(refusals.len() > 15, "{}", refusals.len());
        let log = plugin.logged("/csi.v1.Controller/ListVolumes").await;
        assert!(log.contains("TRACE"), "everything is logged");
        let leaking: Vec<_> = log.lines().filter(|line| line.contains(CANARY)).collect();
        assert_eq!(leaking, [""; 0]);
        plugin.terminate().await;
    });
}

/// The flags and the variables of a start.
type Attempt = (Vec<String>, Vec<(String, String)>);

#[tokio::test]
async fn no_message_about_settings_repeats_a_secret() {
    let directory = tempfile::tempdir().unwrap();
    let good = ["--control-service=https://127.0.0.1:1".to_owned()];
    let url = format!("https://user:{CANARY}@10.0.0.1");
    let values = [
        ("control-service", url.clone()),
        ("control-service", format!("user:{CANARY}@10.0.0.1")),
        ("control-service", format!("https://10.0.0.1?token={CANARY}")),
        ("endpoint", format!("tcp://user:{CANARY}@127.0.0.1:1")),
        ("endpoint", format!("user:{CANARY}@x://127.0.0.1:1")),
        ("metrics-address", format!("http://user:{CANARY}@127.0.0.1:1")),
        ("mode", format!("password={CANARY}")),
        ("pool", format!("capacity=1TiB,password={CANARY}")),
        ("log", format!("loud,password={CANARY}")),
        ("node-id", format!("https://user:{CANARY}@h")),
    ];
    let node_id = directory.path().join("node-id");
    std::fs::write(&node_id, CANARY).unwrap();
    let mut attempts: Vec<Attempt> = Vec::new();
    for (key, value) in &values {
        let rest = |skip: &str| {
            good.iter()
                .filter(|flag| !flag.contains(skip))
                .cloned()
                .collect::<Vec<_>>()
        };
        let name = key.replace('-', "_");
        attempts.push(([rest(key), vec![format!("--{key}={value}")]].concat(), Vec::new()));
        attempts.push((
            rest(key),
            vec![(format!("FLOCKER_CSI_{}", name.to_uppercase()), value.clone())],
        ));
        let file = directory.path().join(format!("{}.toml", attempts.len()));
        std::fs::write(&file, format!("{name} = \"{value}\"\n")).unwrap();
        attempts.push((
            [rest(key), vec![format!("--config={}", file.display())]].concat(),
            Vec::new(),
        ));
    }
    for text in [
        format!("passwd = \"{CANARY}\"\n"),
        format!("mode = {CANARY}\n"),
        format!("mode = \"all\" {CANARY}\n"),
        format!("mode = \"{CANARY}\n"),
        format!("pool = {{ profile = \"a,{CANARY}\" }}\n"),
        format!("pool = {{ capacity = \"1TiB\", password = \"{CANARY}\" }}\n"),
    ] {
        let file = directory.path().join(format!("{}.toml", attempts.len()));
        std::fs::write(&file, text).unwrap();
        attempts.push((
            [good.to_vec(), vec![format!("--config={}", file.display())]].concat(),
            Vec::new(),
        ));
    }
    attempts.push((
        good.to_vec(),
        vec![
            ("FLOCKER_CSI_PASSWORD".to_owned(), CANARY.to_owned()),
            ("FLOCKER_CSI_MODE".to_owned(), "x".to_owned()),
        ],
    ));
    for flag in [
        format!("--password={CANARY}"),
        CANARY.to_owned(),
        format!("-p{CANARY}"),
    ] {
        attempts.push(([good.to_vec(), vec![flag]].concat(), Vec::new()));
    }
    attempts.push((
        [good.to_vec(), vec!["--password".to_owned(), CANARY.to_owned()]].concat(),
        Vec::new(),
    ));
    attempts.push((
        [
            good.to_vec(),
            vec![format!("--node-id-file={}", node_id.display())],
        ]
        .concat(),
        Vec::new(),
    ));
    for (flags, environment) in attempts {
        let mut arguments = vec!["serve", "--check-config"];
        arguments.extend(flags.iter().map(String::as_str));
        let output = program(&arguments)
            .envs(environment.clone())
            .output()
            .await
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{flags:?} {environment:?}: {text}");
        assert!(!text.contains(CANARY), "{flags:?} {environment:?}: {text}");
    }
}
