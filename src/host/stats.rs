//! A mounted volume as `NodeGetVolumeStats` reports it: where it is, whether it is healthy, and how to ask for its usage.

use host_fs::mount::{Mount, TargetPath, layers_at};
use uuid::Uuid;

use super::Host;
use super::evidence::mount_table;
use super::lifecycle::{
    Action, AliasView, Elsewhere, Evidence, Fault, Goal, Refusal, VolumeState, alias_view, decide, observe,
};
use super::mount::{ProbeVia, alias_path};
use super::refusals::Subject;
use super::volume_fault::VolumeFault;
use crate::error::{Error, Result};

/// A volume that is mounted at the requested path.
#[derive(Debug)]
pub(crate) struct MountedVolume {
    pub(crate) dataset: Uuid,
    pub(crate) mount: Mount,
    /// The fault of the volume.
    pub(crate) fault: Option<VolumeFault>,
    /// What to read its usage through; `None` where that would read another file system.
    pub(crate) via: Option<ProbeVia>,
}

impl Host {
    /// Finds a volume by a path: published there, or staged there.
    ///
    /// # Errors
    /// [`Situation::NotMountedThere`](crate::error::Situation::NotMountedThere), naming what is mounted there instead.
    pub(crate) fn mounted_volume(&self, volume_id: &str, volume_path: &str) -> Result<MountedVolume> {
        let refuse = |refusal| Subject::at(volume_id, volume_path.as_ref()).refuse(refusal);
        let not_mounted = |found: Option<Mount>| refuse(Refusal::NotMounted(found.map(Box::new)));
        let resolved = TargetPath::parse(volume_path).and_then(|path| path.resolve());
        let resolved = resolved.map_err(|_| not_mounted(None))?;
        let mut at_path = layers_at(resolved.path()).unwrap_or_default();
        let Some(dataset) = self.dataset_at(resolved.path(), volume_id)? else {
            return Err(not_mounted(at_path.pop()));
        };
        let origins = self.origins(dataset);
        let mut view = alias_view(at_path, |mount| origins.own(mount));
        if matches!(view, AliasView::Nothing | AliasView::Foreign(_)) {
            let alias = alias_path(resolved.path(), dataset);
            let layers = match view {
                AliasView::Nothing => layers_at(&alias).unwrap_or_default(),
                // The mount at the path may hang, and every lookup below it with it.
                _ => mount_table()?.layers_at(&alias).into_iter().cloned().collect(),
            };
            let staged = alias_view(layers, |mount| origins.own(mount));
            if matches!(staged, AliasView::Ours(_) | AliasView::Hidden { .. }) {
                view = staged;
            }
        }
        let ours = match &view {
            AliasView::Ours(mount) => Some((Mount::clone(mount), true)),
            AliasView::Hidden { mount, .. } => Some((Mount::clone(mount), false)),
            AliasView::Nothing | AliasView::Foreign(_) => None,
        };
        match (decide(&self.reported_state(dataset, view)?, Goal::Report), ours) {
            (Action::Measure(fault), Some((mount, visible))) => {
                Ok(self.measurable(dataset, mount, visible, fault))
            }
            (Action::Refuse(refusal), _) => Err(refuse(refusal)),
            _ => Err(not_mounted(None)),
        }
    }

    /// Returns the state of a dataset as one of its mounts shows it, without its records.
    fn reported_state(&self, dataset: Uuid, view: AliasView) -> Result<VolumeState> {
        let pin = self
            .pins
            .view(dataset)
            .map_err(|error| Error::internal("see whether Flocker's mount is in place", error))?;
        Ok(observe(Evidence {
            record: None,
            boot: self.boot_id,
            alias: view,
            pin,
            published_at: None,
            elsewhere: Elsewhere::default(),
        }))
    }

    fn measurable(&self, dataset: Uuid, mount: Mount, visible: bool, fault: Option<Fault>) -> MountedVolume {
        let via = self.usage_through(dataset, &mount);
        let leads_there = visible || matches!(via, ProbeVia::Root(_));
        MountedVolume {
            dataset,
            fault: self.volume_fault(dataset, fault, Some(&mount)),
            via: leads_there.then_some(via),
            mount,
        }
    }

    /// Chooses what to read the usage of a mounted volume through: the pinned mount if there is one.
    fn usage_through(&self, dataset: Uuid, mount: &Mount) -> ProbeVia {
        let held = self
            .pins
            .get(dataset)
            .is_some_and(|held| held.device == mount.device);
        let root = held.then(|| self.pins.root(dataset)).flatten();
        root.map_or(ProbeVia::Path, ProbeVia::Root)
    }
}
