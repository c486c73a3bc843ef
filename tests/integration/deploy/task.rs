//! Volumes as a task of Mesos names them, for `mesos-execute --volumes`.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::capability::{Access, VolumeCapability, check_context};
use super::report::{Report, is_relative};

/// `Volume`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Volume {
    container_path: String,
    mode: Access,
    pub(super) source: Source,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    #[serde(rename = "type")]
    _type: SourceType,
    pub(super) csi_volume: CsiVolume,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum SourceType {
    CsiVolume,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CsiVolume {
    pub(super) plugin_name: String,
    pub(super) static_provisioning: StaticProvisioning,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StaticProvisioning {
    pub(super) volume_id: String,
    pub(super) volume_capability: VolumeCapability,
    node_stage_secrets: Option<serde_json::Value>,
    node_publish_secrets: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) volume_context: HashMap<String, String>,
}

/// Checks the volumes of one container.
pub(super) fn check(report: &mut Report, volumes: &[Volume]) {
    report.require(!volumes.is_empty(), "[]", "there is no volume");
    let mut ids = BTreeSet::new();
    let mut paths = BTreeSet::new();
    for (number, volume) in volumes.iter().enumerate() {
        let at = format!("[{number}]");
        let provisioning = &volume.source.csi_volume.static_provisioning;
        let within = format!("{at}.source.csi_volume.static_provisioning");
        report.require(
            is_relative(&volume.container_path),
            format!("{at}.container_path"),
            "an absolute path would have to exist on every agent; a relative one is made in the sandbox",
        );
        report.require(
            paths.insert(&volume.container_path),
            format!("{at}.container_path"),
            "two volumes cannot have one path",
        );
        report.require(
            !volume.source.csi_volume.plugin_name.is_empty(),
            format!("{at}.source.csi_volume.plugin_name"),
            "it is the type of the plugin",
        );
        provisioning.check(report, &within, volume.mode);
        report.require(
            ids.insert(&provisioning.volume_id),
            format!("{within}.volume_id"),
            "a container cannot have a volume twice",
        );
    }
}

impl StaticProvisioning {
    fn check(&self, report: &mut Report, at: &str, mode: Access) {
        report.require(
            !self.volume_id.is_empty(),
            format!("{at}.volume_id"),
            "it is required",
        );
        for (secrets, field) in [
            (&self.node_stage_secrets, "node_stage_secrets"),
            (&self.node_publish_secrets, "node_publish_secrets"),
        ] {
            report.require(
                secrets.is_none(),
                format!("{at}.{field}"),
                "Mesos takes secrets and never passes them on",
            );
        }
        let at_capability = format!("{at}.volume_capability");
        self.volume_capability.check(report, &at_capability);
        report.require(
            mode == Access::Ro || !self.volume_capability.access_mode.mode.is_read_only(),
            format!("{at_capability}.access_mode.mode"),
            "a mode for readers only does not go with RW",
        );
        check_context(
            report,
            &format!("{at}.volume_context"),
            &self.volume_id,
            &self.volume_context,
        );
    }
}
