//! Applications of Marathon.

use std::collections::{BTreeSet, HashMap};

use serde::Deserialize;

use super::capability::{Access, Asked, Mode, check_context};
use super::report::{Report, is_relative};

/// An application.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct App {
    id: String,
    cmd: String,
    instances: u32,
    cpus: f64,
    mem: f64,
    pub(super) container: Container,
    upgrade_strategy: UpgradeStrategy,
    unreachable_strategy: Unreachable,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Container {
    #[serde(rename = "type")]
    _type: ContainerType,
    pub(super) volumes: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ContainerType {
    /// Docker's own containers get no CSI volumes.
    Mesos,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UpgradeStrategy {
    minimum_health_capacity: f64,
    maximum_over_capacity: f64,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Unreachable {
    Never(String),
    After(UnreachableAfter),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UnreachableAfter {
    inactive_after_seconds: u32,
    expunge_after_seconds: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Volume {
    container_path: String,
    mode: Access,
    pub(super) external: Option<External>,
    pub(super) persistent: Option<Persistent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct External {
    #[serde(rename = "provider")]
    _provider: Provider,
    pub(super) name: String,
    pub(super) options: Options,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Provider {
    Csi,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Options {
    pub(super) plugin_name: String,
    pub(super) capability: Capability,
    node_stage_secret: Option<serde_json::Value>,
    node_publish_secret: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) volume_context: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Capability {
    access_type: AccessType,
    access_mode: Mode,
    fs_type: Option<String>,
    #[serde(default)]
    mount_flags: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AccessType {
    Mount,
    Block,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Persistent {
    #[serde(rename = "type")]
    _type: DiskType,
    size: u64,
    max_size: Option<u64>,
    pub(super) profile_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum DiskType {
    Mount,
}

impl App {
    pub(super) fn check(&self, report: &mut Report) {
        report.require(is_id(&self.id), "id", format!("{:?} is no id", self.id));
        report.require(!self.cmd.is_empty(), "cmd", "there is nothing to run");
        report.require(self.cpus > 0.0, "cpus", "it has to be more than nothing");
        report.require(self.mem > 0.0, "mem", "it has to be more than nothing");
        report.require(
            self.instances <= 1,
            "instances",
            "a volume of one node has one instance at most",
        );
        for (share, field) in [
            (
                self.upgrade_strategy.minimum_health_capacity,
                "minimumHealthCapacity",
            ),
            (self.upgrade_strategy.maximum_over_capacity, "maximumOverCapacity"),
        ] {
            report.require(
                share == 0.0,
                format!("upgradeStrategy.{field}"),
                "the old task has to end before the new one starts: 0",
            );
        }
        self.check_unreachable(report);
        let volumes = &self.container.volumes;
        report.require(!volumes.is_empty(), "container.volumes", "there is no volume");
        let mut names = BTreeSet::new();
        for (number, volume) in volumes.iter().enumerate() {
            let at = format!("container.volumes[{number}]");
            volume.check(report, &at);
            if let Some(external) = &volume.external {
                report.require(
                    names.insert(&external.name),
                    format!("{at}.external.name"),
                    "an application cannot have a volume twice",
                );
            }
        }
    }

    fn check_unreachable(&self, report: &mut Report) {
        let at = "unreachableStrategy";
        let resident = self
            .container
            .volumes
            .iter()
            .any(|volume| volume.persistent.is_some());
        match &self.unreachable_strategy {
            Unreachable::Never(text) => {
                report.require(text == "disabled", at, format!("{text:?} is not \"disabled\""));
            }
            Unreachable::After(_) if resident => report.refuse(
                at,
                "a task with a disk of its agent cannot start elsewhere: \"disabled\"",
            ),
            Unreachable::After(after) => report.require(
                after.inactive_after_seconds <= after.expunge_after_seconds,
                format!("{at}.expungeAfterSeconds"),
                "it cannot come before inactiveAfterSeconds",
            ),
        }
    }

    /// Returns the volumes that no other application may use.
    pub(super) fn exclusive(&self) -> impl Iterator<Item = &str> {
        self.external()
            .filter(|external| external.options.capability.access_mode.is_single_node())
            .map(|external| external.name.as_str())
    }

    pub(super) fn external(&self) -> impl Iterator<Item = &External> {
        self.container
            .volumes
            .iter()
            .filter_map(|volume| volume.external.as_ref())
    }
}

impl Volume {
    fn check(&self, report: &mut Report, at: &str) {
        report.require(
            is_relative(&self.container_path),
            format!("{at}.containerPath"),
            "an absolute path would have to exist on every agent; a relative one is made in the sandbox",
        );
        match (&self.external, &self.persistent) {
            (Some(external), None) => external.check(report, &format!("{at}.external"), self.mode),
            (None, Some(disk)) => {
                report.require(
                    !self.container_path.contains('/'),
                    format!("{at}.containerPath"),
                    "a persistent volume has a path without slashes",
                );
                report.require(
                    self.mode == Access::Rw,
                    format!("{at}.mode"),
                    "a persistent volume is RW",
                );
                disk.check(report, &format!("{at}.persistent"));
            }
            _ => report.refuse(at, "exactly one of external and persistent is needed"),
        }
    }
}

impl External {
    fn check(&self, report: &mut Report, at: &str, mode: Access) {
        report.require(!self.name.is_empty(), format!("{at}.name"), "it is required");
        let options = &self.options;
        let at = format!("{at}.options");
        report.require(
            !options.plugin_name.is_empty(),
            format!("{at}.pluginName"),
            "it is the type of the plugin",
        );
        for (secret, field) in [
            (&options.node_stage_secret, "nodeStageSecret"),
            (&options.node_publish_secret, "nodePublishSecret"),
        ] {
            report.require(
                secret.is_none(),
                format!("{at}.{field}"),
                "Mesos takes secrets and never passes them on",
            );
        }
        options
            .capability
            .check(report, &format!("{at}.capability"), mode);
        check_context(
            report,
            &format!("{at}.volumeContext"),
            &self.name,
            &options.volume_context,
        );
    }
}

impl Capability {
    fn check(&self, report: &mut Report, at: &str, mode: Access) {
        report.require(
            self.access_type == AccessType::Block || self.fs_type.is_some(),
            format!("{at}.fsType"),
            "Marathon fails without it where accessType is mount",
        );
        report.require(
            mode == Access::Ro || !self.access_mode.is_read_only(),
            format!("{at}.accessMode"),
            "a mode for readers only does not go with RW",
        );
        self.to_csi()
            .check(report, at, self.access_mode, &format!("{at}.accessMode"));
    }

    /// Returns the capability in the plugin's format.
    pub(super) fn to_csi(&self) -> Asked {
        let mount = (self.access_type == AccessType::Mount).then(|| {
            (
                self.fs_type.as_deref().unwrap_or_default(),
                self.mount_flags.as_slice(),
            )
        });
        Asked::new(mount, self.access_mode)
    }
}

impl Persistent {
    fn check(&self, report: &mut Report, at: &str) {
        report.require(
            self.size > 0,
            format!("{at}.size"),
            "it has to be more than nothing",
        );
        report.require(
            self.max_size.is_none_or(|most| most >= self.size),
            format!("{at}.maxSize"),
            "it cannot be less than size",
        );
        report.require(
            self.profile_name.is_some(),
            format!("{at}.profileName"),
            "without it only disks without a profile are taken, and a plugin's have one",
        );
    }
}

/// Whether a text is an absolute id of an application.
fn is_id(id: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|character| {
                character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
            })
    };
    id.strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(|part| part.split('.').all(is_label)))
}
