//! The plugin's own directories, over and in which no volume is mounted.

use std::path::{Path, PathBuf};

use super::evidence::{Staged, layers};
use super::{Host, HostSettings};
use crate::error::{Error, Result, Situation};
use crate::volume::dataset_of;

/// A directory that the plugin or Flocker needs as it is.
#[derive(Debug)]
struct OwnPlace {
    name: &'static str,
    /// Free of symbolic links, as far as it existed when the plugin was started.
    path: PathBuf,
    /// Whether everything below it is the plugin's or Flocker's too.
    with_content: bool,
}

/// All of them.
#[derive(Debug)]
pub(super) struct OwnPlaces(Vec<OwnPlace>);

impl OwnPlaces {
    /// Returns those of these settings. Blocks.
    pub(super) fn of(settings: &HostSettings) -> Self {
        let place = |name, path: &Path, with_content| OwnPlace {
            name,
            path: resolved(path),
            with_content,
        };
        let mut places = vec![
            place("state_dir", &settings.state_dir, true),
            place("device_dir", &settings.device_dir, true),
            place("mount_root", &settings.mount_root, true),
        ];
        // Some orchestrators have their staging paths and targets beside the socket; a mount must only not hide that.
        if let Some(directory) = &settings.socket_dir {
            places.push(place("the directory of the endpoint's socket", directory, false));
        }
        Self(places)
    }

    /// Checks that a mount at `path`, which has no symbolic links, is apart from all of them. `given` is the path from
    /// the request that leads to it, `field` the name of that.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`], naming the directory.
    pub(super) fn check(&self, field: &str, given: &Path, path: &Path) -> Result<()> {
        let overlap = self.0.iter().find_map(|place| {
            let how = if place.path == path {
                "would be mounted at"
            } else if place.path.starts_with(path) {
                "would hide"
            } else if place.with_content && path.starts_with(&place.path) {
                "would be mounted in"
            } else {
                return None;
            };
            Some((how, place))
        });
        let Some((how, place)) = overlap else {
            return Ok(());
        };
        let text = format!(
            "{field} {} cannot be used: the volume {how} {}, {}; use another directory",
            given.display(),
            place.name,
            place.path.display()
        );
        Err(Error::new(Situation::InvalidArgument, text))
    }
}

impl Host {
    /// Checks that a volume may be staged at a path: below none of the plugin's own directories, nor in a staged volume.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] naming the overlap.
    pub(crate) fn refuse_overlap_of_staging(&self, staged: &Staged) -> Result<()> {
        let field = "staging_target_path";
        self.own_places.check(field, &staged.staging, &staged.alias())?;
        self.refuse_staged_above(field, &staged.staging)
    }

    /// As [`Self::refuse_overlap_of_staging`], for a volume that is to be unstaged and is not mounted there: no directory
    /// of the plugin's is removed for it.
    pub(crate) fn refuse_overlap_of_unstaging(&self, staged: &Staged) -> Result<()> {
        let origins = self.origins(staged.dataset);
        if layers(&staged.alias())?.iter().any(|mount| origins.own(mount)) {
            return Ok(());
        }
        self.refuse_overlap_of_staging(staged)
    }

    /// Checks that a target is in none of the plugin's own directories, nor in a staged volume.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] naming the overlap.
    pub(super) fn refuse_overlap_of_target(&self, path: &Path) -> Result<()> {
        self.own_places.check("target_path", path, path)?;
        self.refuse_staged_above("target_path", path)
    }

    fn refuse_staged_above(&self, field: &str, path: &Path) -> Result<()> {
        for above in path.ancestors() {
            let name = above.file_name().and_then(|name| dataset_of(name.to_str()?));
            if let (Some(dataset), Some(staging)) = (name, above.parent())
                && self.records.get(dataset, staging).is_some()
            {
                let text = format!(
                    "{field} {} cannot be used: volume {dataset} is staged at {}; use another directory",
                    path.display(),
                    above.display()
                );
                return Err(Error::new(Situation::InvalidArgument, text));
            }
        }
        Ok(())
    }
}

/// Follows the symbolic links in a path as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let found = path
        .ancestors()
        .find_map(|above| Some((above.canonicalize().ok()?, path.strip_prefix(above).ok()?)));
    match found {
        Some((above, rest)) if rest == Path::new("") => above,
        Some((above, rest)) => above.join(rest),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn every_overlap_with_a_directory_of_the_plugin_is_named() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        for name in ["state", "devices", "run"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::os::unix::fs::symlink("state", path("link")).unwrap();
        let places = OwnPlaces::of(&HostSettings {
            state_dir: path("link"),
            device_dir: path("devices"),
            // Flocker may make it later.
            mount_root: path("missing/flocker"),
            accept_unverified_propagation: false,
            socket_dir: Some(path("run")),
            agent_file_systems: Vec::new(),
            pin_store: crate::host::PinStore::default(),
            metrics: Metrics::default(),
        });
        let check = |name: &str| places.check("target_path", &path(name), &path(name));
        for (name, parts) in [
            ("state", ["mounted at state_dir", "state"]),
            ("state/stages", ["mounted in state_dir", "state"]),
            ("devices", ["mounted at device_dir", "devices"]),
            ("devices/x", ["mounted in device_dir", "devices"]),
            ("missing/flocker/x", ["mounted in mount_root", "missing/flocker"]),
            ("missing", ["hide mount_root", "missing/flocker"]),
            (
                "run",
                ["mounted at the directory of the endpoint's socket", "run"],
            ),
            ("", ["hide state_dir", "state"]),
        ] {
            let refused = check(name).unwrap_err();
            assert_eq!(refused.situation(), Situation::InvalidArgument);
            for part in parts {
                assert!(refused.chain().contains(part), "{}", refused.chain());
            }
        }
        for name in ["run/target", "other", "state-2", "missing/flocker-2"] {
            check(name).unwrap();
        }
    }
}
