//! The flags of an agent.

use std::collections::BTreeMap;

use super::profiles::ADAPTOR;
use super::report::{Report, is_absolute, seconds};

/// How long a volume may take to move before the agent abandons the task, in seconds: attachments in a cloud were
/// observed to take up to six minutes.
const LONG_MOVE: f64 = 360.0;

/// Flags by name.
pub(super) type Flags = BTreeMap<String, String>;

/// Reads flags, one a line; other lines are for people.
pub(super) fn read(report: &mut Report, text: &str) -> Flags {
    let mut flags = Flags::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let flag = line.strip_prefix("--").and_then(|flag| flag.split_once('='));
        match flag {
            Some((name, value)) if !value.is_empty() && !value.contains(char::is_whitespace) => {
                let before = flags.insert(name.to_owned(), value.to_owned());
                report.require(before.is_none(), name, "it is given twice");
            }
            _ => report.refuse(line, "this is no --flag=value"),
        }
    }
    flags
}

pub(super) fn check(report: &mut Report, flags: &Flags) {
    for (name, value) in flags {
        let valid = match name.as_str() {
            "work_dir" | "resource_provider_config_dir" | "csi_plugin_config_dir" => is_absolute(value),
            "launcher" => value == "linux",
            "isolation" => value.split(',').all(|isolator| !isolator.is_empty()),
            "modules" => value.strip_prefix("file://").is_some_and(is_absolute),
            "disk_profile_adaptor" => value == ADAPTOR,
            "executor_registration_timeout" => seconds(value).is_some_and(|seconds| seconds >= LONG_MOVE),
            _ => {
                report.refuse(name, "this flag is not known to be needed");
                continue;
            }
        };
        report.require(valid, name, format!("{value:?} will not do"));
    }
    for needed in [
        "work_dir",
        "launcher",
        "isolation",
        "executor_registration_timeout",
    ] {
        report.require(flags.contains_key(needed), needed, "it is needed");
    }
    let isolates = |isolator: &str| {
        let isolation = flags.get("isolation");
        isolation.is_some_and(|isolation| isolation.split(',').any(|name| name == isolator))
    };
    report.require(
        isolates("filesystem/linux"),
        "isolation",
        "mounts of a plugin reach tasks with filesystem/linux",
    );
    report.require(
        isolates("volume/csi") == flags.contains_key("csi_plugin_config_dir"),
        "isolation",
        "volume/csi and csi_plugin_config_dir are of no use without each other",
    );
    let provides = flags.contains_key("resource_provider_config_dir");
    for name in ["modules", "disk_profile_adaptor"] {
        report.require(
            flags.contains_key(name) == provides,
            name,
            "profiles and resource_provider_config_dir are of no use without each other",
        );
    }
    report.require(
        provides || isolates("volume/csi"),
        "isolation",
        "nothing here makes use of a plugin",
    );
}
