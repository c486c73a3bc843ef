//! Secrets, which are never logged.

use std::collections::HashMap;

use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::{
    ControllerPublishVolumeRequest, ControllerUnpublishVolumeRequest, CreateVolumeRequest,
    DeleteVolumeRequest, NodePublishVolumeRequest, NodeStageVolumeRequest, ValidateVolumeCapabilitiesRequest,
};
use tonic::Code;

use super::assert_refused;
use crate::support::csi::with_flags;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const CANARY: &str = "canary-in-a-coal-mine";

fn secrets() -> HashMap<String, String> {
    [("password".to_owned(), CANARY.to_owned())].into()
}

#[test]
fn no_secret_of_a_whole_life_is_in_the_most_talkative_log() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&["--log=trace"]).await;
        let (mut controller, mut node) = (plugin.csi.controller(), plugin.csi.node());
        let capability = with_flags(Mode::SingleNodeWriter, &["noatime"]);
        let talkative = with_flags(Mode::SingleNodeWriter, &[&format!("password={CANARY}")]);

        let request = CreateVolumeRequest {
            name: "data".to_owned(),
            volume_capabilities: vec![capability.clone()],
            secrets: secrets(),
            ..Default::default()
        };
        let created = controller.create_volume(request.clone()).await.unwrap();
        let volume = created.into_inner().volume.unwrap().volume_id;
        let refused = CreateVolumeRequest {
            volume_capabilities: vec![talkative.clone()],
            ..request
        };
        assert_refused(
            controller.create_volume(refused).await,
            Code::InvalidArgument,
            &["mount_flags", "password"],
        );
        let request = ValidateVolumeCapabilitiesRequest {
            volume_id: volume.clone(),
            volume_capabilities: vec![talkative.clone()],
            secrets: secrets(),
            ..Default::default()
        };
        controller.validate_volume_capabilities(request).await.unwrap();
        let request = ControllerPublishVolumeRequest {
            volume_id: volume.clone(),
            node_id: machine.node().to_string(),
            volume_capability: Some(capability.clone()),
            secrets: secrets(),
            ..Default::default()
        };
        let attached = controller.controller_publish_volume(request).await.unwrap();
        let mut usage = machine.usage(
            "data",
            volume.parse().unwrap(),
            &attached.into_inner().publish_context,
        );
        usage.capability = capability;
        let request = NodeStageVolumeRequest {
            secrets: secrets(),
            ..usage.to_stage()
        };
        node.node_stage_volume(request).await.unwrap();
        let request = NodePublishVolumeRequest {
            secrets: secrets(),
            ..usage.to_publish()
        };
        node.node_publish_volume(request.clone()).await.unwrap();
        let refused = NodePublishVolumeRequest {
            volume_capability: Some(talkative),
            ..request
        };
        assert_refused(
            node.node_publish_volume(refused).await,
            Code::FailedPrecondition,
            &["mount_flags", "password"],
        );
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        let request = ControllerUnpublishVolumeRequest {
            volume_id: volume.clone(),
            node_id: machine.node().to_string(),
            secrets: secrets(),
        };
        controller.controller_unpublish_volume(request).await.unwrap();
        let request = DeleteVolumeRequest {
            volume_id: volume,
            secrets: secrets(),
        };
        controller.delete_volume(request).await.unwrap();

        let log = plugin.logged("/csi.v1.Controller/DeleteVolume").await;
        for method in ["CreateVolume", "NodePublishVolume", "DeleteVolume"] {
            assert!(log.contains(method), "{method} is logged");
        }
        assert!(log.contains("TRACE"), "everything is logged");
        let key = std::fs::read_to_string(&machine.config.flocker.user_key).unwrap();
        let key = key.lines().nth(1).unwrap();
        for secret in [CANARY, key] {
            let leaking: Vec<_> = log.lines().filter(|line| line.contains(secret)).collect();
            assert_eq!(leaking, [""; 0]);
        }
        plugin.kill().await;
    });
}
