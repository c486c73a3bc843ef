//! What deserves attention in settings that are valid.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::{Config, Endpoint, Mode};
use crate::volume::did_you_mean;

/// A node is listed for about two minutes after its last report, and a report takes a few seconds to arrive: what is missing for less
/// than this may only be slow.
const SHORTEST_GRACE: Duration = Duration::from_secs(60);

/// The crates of this project: a level of the log without a module's name is about these.
pub(crate) const OWN_CRATES: [&str; 6] = [
    "flocker_csi",
    "flocker_client",
    "flocker_embedded",
    "grpc_authority",
    "host_fs",
    "supervised_tasks",
];
/// The modules of this crate.
const MODULES: [&str; 15] = [
    "commands",
    "config",
    "controller",
    "csi",
    "decisions",
    "error",
    "flocker",
    "fuzz",
    "host",
    "node",
    "operation",
    "server",
    "telemetry",
    "v0",
    "volume",
];
/// Other crates whose log lines pass the filter.
const FOREIGN: [&str; 8] = [
    "h2",
    "hyper",
    "hyper_util",
    "log",
    "reqwest",
    "tokio",
    "tonic",
    "tower",
];

/// The settings that only a node has a use for.
const OF_NODES: [&str; 7] = [
    "device_dir",
    "accept_unverified_propagation",
    "create_on_first_use",
    "abandoned_grace",
    "only_nodes_attach",
    "max_volumes_per_node",
    "mount_root",
];
/// The settings that only a controller has a use for.
const OF_CONTROLLERS: [&str; 1] = ["list_scope"];
/// The settings of volumes that a node creates only with `create_on_first_use`.
const OF_CREATION: [&str; 5] = [
    "pool",
    "provision_wait",
    "default_size",
    "allocation_unit",
    "namespace",
];
/// The settings that name directories of the plugin.
const DIRECTORIES: [&str; 3] = ["state_dir", "device_dir", "mount_root"];

impl Config {
    /// Returns what is doubtful about the values: one sentence for each.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let grace = self.node_loss.takeover_grace;
        let short = (grace < SHORTEST_GRACE).then(|| {
            format!(
                "takeover_grace is {} s: a node that is only slow, or whose control service is started again, can be missing for \
                 longer and would count as lost; set it to {} s or more",
                grace.as_secs(),
                SHORTEST_GRACE.as_secs()
            )
        });
        let profiles = self.pools.iter().map(|pool| &pool.profile);
        let mut seen = Vec::new();
        let mut doubts: Vec<String> = short.into_iter().collect();
        for profile in profiles {
            if seen.contains(&profile) {
                let of = match profile {
                    Some(profile) => format!("of the profile {profile:?}"),
                    None => "without a profile".to_owned(),
                };
                doubts.push(format!("there are two pools {of}: leave one out"));
            }
            seen.push(profile);
        }
        doubts.extend(unknown_log_targets(&self.log.log));
        doubts
    }

    /// Returns why the state directory cannot be where the setting puts it.
    pub(crate) fn misplaced_state_dir(&self) -> Option<String> {
        let path = &self.node.state_dir;
        let shown = path.display();
        if ["/proc", "/sys"].iter().any(|above| path.starts_with(above)) {
            return Some(format!(
                "state_dir {shown} is in a file system of the kernel, where no record can be kept: set it to a directory on a disk, \
                 such as /var/lib/flocker-csi"
            ));
        }
        let exists = std::fs::metadata(path).is_ok_and(|found| !found.is_dir());
        exists.then(|| format!("state_dir {shown} is a file, and has to be a directory: move the file, or set another state_dir"))
    }
}

/// Returns what is doubtful about how settings were given, which their values do not show: relative paths, and settings that
/// have no effect.
pub(crate) fn doubts_of(config: &Config, matches: &ArgMatches) -> Vec<String> {
    let is_given = |key: &str| {
        matches.try_contains_id(key).is_ok_and(|known| known)
            && matches.value_source(key) == Some(ValueSource::CommandLine)
    };
    let relative = DIRECTORIES.iter().filter(|key| is_given(key)).filter_map(|key| {
        let given: &OsStr = matches.get_raw(key)?.next_back()?;
        Path::new(given).is_relative().then(|| {
            format!(
                "{key} {:?} is relative, and is another directory whenever the plugin is started from elsewhere: write the absolute path",
                given.to_string_lossy()
            )
        })
    });
    let without_effect = no_effect(config, is_given)
        .map(|(key, reason)| format!("{key} has no effect {reason}: leave it out"));
    relative.chain(without_effect).collect()
}

fn no_effect(
    config: &Config,
    is_given: impl Fn(&str) -> bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let of_mode: Vec<(&str, &str)> = match config.mode {
        Mode::Controller => OF_NODES
            .iter()
            .map(|key| (*key, "with mode = controller"))
            .collect(),
        Mode::Node => {
            let created = if config.plugin.create_on_first_use {
                &[][..]
            } else {
                &OF_CREATION
            };
            let created = created
                .iter()
                .map(|key| (*key, "with mode = node and without create_on_first_use"));
            let listed = OF_CONTROLLERS.iter().map(|key| (*key, "with mode = node"));
            listed.chain(created).collect()
        }
        Mode::All => vec![(
            "only_nodes_attach",
            "with mode = all, where the controller attaches too",
        )],
    };
    let unix = matches!(config.plugin.endpoint, Endpoint::Unix(_));
    let of_endpoint = unix.then_some(("allow_unauthenticated_tcp", "where the endpoint is a Unix socket"));
    of_mode
        .into_iter()
        .chain(of_endpoint)
        .filter(move |(key, _)| is_given(key))
}

/// Returns which targets of a log filter nothing logs for.
fn unknown_log_targets(filter: &str) -> Vec<String> {
    let targets = filter
        .split(',')
        .filter_map(|directive| directive.split_once('='));
    targets.filter_map(|(target, _)| unknown(target.trim())).collect()
}

fn unknown(target: &str) -> Option<String> {
    let mut parts = target.split("::");
    let name = parts.next().unwrap_or_default();
    let similar = if name == "flocker_csi" {
        let module = parts.next()?;
        if MODULES.contains(&module) {
            return None;
        }
        did_you_mean(module, MODULES)
    } else if OWN_CRATES.contains(&name) || FOREIGN.contains(&name) {
        return None;
    } else {
        did_you_mean(name, OWN_CRATES)
    };
    Some(format!(
        "log: nothing logs as {target:?}{similar}, so that part of the filter has no effect"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modules_that_log_are_those_of_the_crate() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut found: Vec<_> = std::fs::read_dir(source)
            .unwrap()
            .map(|entry| {
                entry
                    .unwrap()
                    .path()
                    .file_stem()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .filter(|name| !["main", "lib"].contains(&name.as_str()))
            .collect();
        found.sort();
        assert_eq!(found, MODULES);
    }

    #[test]
    fn a_log_target_that_nothing_has_is_named_with_a_similar_one() {
        assert_eq!(
            unknown_log_targets("info,flocker_csi::node=debug,h2=warn"),
            [""; 0]
        );
        let [doubt] = &unknown_log_targets("flocker_csi::nod=debug")[..] else {
            panic!("one target is unknown")
        };
        assert!(
            doubt.contains("\"flocker_csi::nod\"") && doubt.contains("\"node\""),
            "{doubt}"
        );
        assert!(unknown_log_targets("flockercsi=debug")[0].contains("flocker_csi"));
    }
}
