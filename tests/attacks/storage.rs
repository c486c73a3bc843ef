//! Volumes of an embedded Flocker that are gone or damaged when it starts. It must not put an empty volume in the place
//! of one that had data: it reports it, and all other volumes can be used.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use csi_proto::v1::ControllerGetVolumeRequest;
use csi_proto::v1::volume_capability::access_mode::Mode;
use tonic::Code;
use uuid::Uuid;

use crate::support::csi::{Usage, capability, within};
use crate::support::eventually;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, run};
use crate::support::scratch::Scratch;

fn arguments(scratch: &Scratch) -> Vec<String> {
    let path = |name: &str| scratch.path().join(name).display().to_string();
    vec![
        "standalone".to_owned(),
        format!("--data-dir={}", path("data")),
        format!("--endpoint=unix://{}", path("csi.sock")),
        format!("--device-dir={}", path("devices")),
        "--accept-unverified-propagation".to_owned(),
    ]
}

async fn start(scratch: &Scratch) -> Process {
    let arguments = arguments(scratch);
    let arguments = arguments.iter().map(String::as_str).collect();
    Process::start(arguments, &scratch.path().join("log")).await
}

fn usage(scratch: &Scratch, volume: Uuid) -> Usage {
    let staging = scratch.path().join(format!("staging-{volume}"));
    fs::create_dir_all(&staging).unwrap();
    Usage {
        volume_id: volume.to_string(),
        publish_context: [].into(),
        volume_context: [].into(),
        staging,
        target: scratch.path().join(format!("target-{volume}")),
        capability: capability(Mode::SingleNodeWriter),
        readonly: false,
    }
}

/// Waits for a line of the log that names the volume and everything in `parts`.
async fn logs(plugin: &Process, volume: Uuid, parts: &[&str]) {
    let id = volume.to_string();
    eventually(&format!("the log says {parts:?} of {id}"), async || {
        let log = plugin.log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains(&id) && parts.iter().all(|part| line.contains(part)))
            .then_some(())
    })
    .await;
}

#[test]
fn a_volume_that_is_missing_or_damaged_at_the_start_is_reported_and_not_replaced() {
    in_own_namespace(|| async {
        let scratch = Scratch::new();
        let plugin = start(&scratch).await;
        let [missing, damaged, healthy] = [
            plugin.csi.create("missing").await,
            plugin.csi.create("damaged").await,
            plugin.csi.create("healthy").await,
        ];
        // Until it is formatted, its file has another name.
        for volume in [missing, damaged, healthy] {
            plugin.csi.stage(&usage(&scratch, volume)).await.unwrap();
            plugin.csi.unstage(&usage(&scratch, volume)).await.unwrap();
        }
        plugin.terminate().await;
        let file = |volume: Uuid| scratch.path().join("data/volumes").join(volume.to_string());
        fs::remove_file(file(missing)).unwrap();
        let content = OpenOptions::new().write(true).open(file(damaged)).unwrap();
        content.write_all_at(&[0; 4096], 0).unwrap();

        let plugin = start(&scratch).await;
        let path = file(missing).display().to_string();
        logs(
            &plugin,
            missing,
            &[&path, "is missing", "not made again", "restore"],
        )
        .await;
        let path = file(damaged).display().to_string();
        logs(
            &plugin,
            damaged,
            &[&path, "4 KiB are zero", "not formatted again", "e2fsck -b"],
        )
        .await;
        plugin.csi.stage(&usage(&scratch, healthy)).await.unwrap();
        for volume in [missing, damaged] {
            let request = within(Duration::from_secs(2), usage(&scratch, volume).to_stage());
            let refused = plugin.csi.node().node_stage_volume(request).await.unwrap_err();
            assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
        }
        let request = ControllerGetVolumeRequest {
            volume_id: missing.to_string(),
        };
        let found = plugin.csi.controller().controller_get_volume(request).await;
        let condition = found
            .unwrap()
            .into_inner()
            .status
            .unwrap()
            .volume_condition
            .unwrap();
        assert!(
            condition.abnormal && condition.message.contains("has lost its storage"),
            "{condition:?}"
        );
        for volume in [missing, damaged, healthy] {
            plugin.csi.unstage(&usage(&scratch, volume)).await.unwrap();
        }
        plugin.csi.delete(missing).await.unwrap();
        plugin.terminate().await;
        assert!(!file(missing).exists());
    });
}

#[test]
fn a_standalone_plugin_whose_state_file_is_lost_does_not_start() {
    in_own_namespace(|| async {
        let scratch = Scratch::new();
        let plugin = start(&scratch).await;
        plugin.csi.create("data").await;
        plugin.terminate().await;
        let state = scratch.path().join("data/state.redb");
        fs::remove_file(&state).unwrap();
        let arguments = arguments(&scratch);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let (status, said) = run(&arguments).await;
        assert_eq!(status.code(), Some(1), "{said}");
        let state = state.display().to_string();
        for part in [&state, "is missing", "Restore", "mount -o loop"] {
            assert!(said.contains(part), "{said}");
        }
    });
}
