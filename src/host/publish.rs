//! The steps of publishing and unpublishing: a bind of the alias at a target.

use std::path::{Path, PathBuf};

use host_fs::mount::{
    Mount, MountHandle, Patience, Relation, TableError, Target, TargetError, unmount_owned,
};
use uuid::Uuid;

use super::Host;
use super::evidence::{Origins, Staged, hidden, mount_table};
use super::leftovers::LeftoverKind;
use super::lifecycle::{Action, AtStaging, Goal, Refusal, TargetView, VolumeState, decide, target_view};
use super::mount::{device_is_missing, file_system_fault, is_named_after};
use super::refusals::Subject;
use crate::error::{Error, Result, Situation};
use crate::telemetry::Counter;
use crate::volume::MountFlags;

/// The owner of the directory at which a volume is published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetDirectory {
    /// The plugin's: publishing makes it, and unpublishing removes it.
    #[default]
    Plugins,
    /// The orchestrator's, as in `csi.v0`: it exists before the volume is published, and stays.
    Orchestrators,
}

/// A volume to publish, and the target.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) volume_id: String,
    pub(crate) dataset: Uuid,
    pub(crate) staging: Target,
    pub(crate) target: Target,
    pub(crate) directory: TargetDirectory,
    pub(crate) flags: MountFlags,
    /// Whether the volume may have no second target.
    pub(crate) single_target: bool,
}

/// A volume to unpublish, and the target.
#[derive(Clone, Debug)]
pub(crate) struct Unpublication {
    pub(crate) volume_id: String,
    /// `None` when the volume id is a name that stands for no dataset on this node.
    pub(crate) dataset: Option<Uuid>,
    pub(crate) target: Target,
    pub(crate) directory: TargetDirectory,
}

impl Host {
    /// Makes a staged volume visible at a target in one step. Publishing it again in the same way changes nothing.
    ///
    /// # Errors
    /// [`Situation::NotStaged`] when the volume is not staged there, or something is wrong with it;
    /// [`Situation::ForeignMount`], [`Situation::Incompatible`] or [`Situation::SingleWriter`] because of what is mounted
    /// already; [`Situation::NotShared`] where no other process would see the mount.
    pub(crate) fn publish(&self, publication: &Publication) -> Result<()> {
        let Publication { dataset, target, .. } = publication;
        let staged = Staged::new(*dataset, &publication.staging);
        publication.refuse_own_directory(&staged)?;
        self.refuse_overlap_of_target(target.path())?;
        let origins = self.origins(*dataset);
        let alias = publication.staging.open_mount_below(&dataset.to_string())?;
        let mut state = self.state_at(&staged, &origins, alias.as_ref().map(MountHandle::mount))?;
        let Some(alias) = alias.filter(|alias| origins.own(alias.mount())) else {
            return Err(publication.refuse_unstaged(&state));
        };
        let top = target.visible().map_err(|error| unreadable(target, error))?;
        if let Some(top) = &top
            && self.is_staged_mount(*dataset, top)?
        {
            return Err(publication.own_directory());
        }
        let asked = publication.flags.change();
        let at_target = target_view(top, |mount| origins.own(mount), alias.mount(), asked);
        let foreign = self.lease_condition(*dataset);
        if let Some(condition) = foreign.filter(|condition| condition.excludes_publication())
            && (at_target == TargetView::Nothing || state.at_staging != AtStaging::Staged)
        {
            // Not what is wrong with the mounts, which staging again would not repair.
            return Err(publication.refuse(Refusal::Broken(format!(": {condition}"))));
        }
        let mut broken = None;
        if at_target == TargetView::Nothing {
            broken = publication.broken(alias.mount());
            if publication.single_target {
                state.published_at = self.other_target(publication, &origins)?;
            }
        }
        let goal = Goal::Publish {
            target: at_target,
            single: publication.single_target,
            broken,
        };
        match decide(&state, goal) {
            Action::Bind => self.bind(publication, &alias),
            Action::Refuse(refusal) => Err(publication.refuse(refusal)),
            _ => Ok(()),
        }
    }

    fn bind(&self, publication: &Publication, alias: &MountHandle) -> Result<()> {
        let Publication { target, dataset, .. } = publication;
        self.visibility.check(target.path())?;
        let made = match publication.directory {
            TargetDirectory::Plugins => target.ensure_directory()?,
            TargetDirectory::Orchestrators if target.exists() => false,
            TargetDirectory::Orchestrators => {
                let text = format!(
                    "target_path {} does not exist: in csi.v0 the orchestrator makes that directory first",
                    target.path().display()
                );
                return Err(Error::new(Situation::InvalidArgument, text));
            }
        };
        if !made {
            target.refuse_content()?;
        }
        self.targets.add(*dataset, target.path());
        let bound = self.binder.bind(alias, target, publication.flags.change());
        let bound = self.measured("publish", bound);
        if bound.is_err() {
            if matches!(target.visible_now(), Ok(None)) {
                self.targets.remove(*dataset, target.path());
            }
            if made {
                self.remove_directory_of(*dataset, target.path());
            }
        }
        bound?;
        let at = target.path().display();
        tracing::debug!(volume.id = %dataset, step = "published", "Dataset {dataset} is mounted at {at}");
        Ok(())
    }

    /// Returns another target at which the volume is published, as the mount table confirms.
    fn other_target(&self, publication: &Publication, origins: &Origins) -> Result<Option<PathBuf>> {
        let Publication { dataset, target, .. } = publication;
        if self.targets.other_than(*dataset, target.path()).is_none() {
            return Ok(None);
        }
        // The mount may be at another path by now, under another mount, or gone; and a look at the path might hang.
        let table = mount_table()?;
        let published = table
            .mounts()
            .iter()
            .filter(|mount| origins.are_used_by(mount) && !self.is_alias(&table, *dataset, mount))
            .map(|mount| mount.point.clone());
        self.targets.replace(*dataset, published.collect());
        Ok(self.targets.other_than(*dataset, target.path()))
    }

    /// Unmounts the volume from a target, and leaves the directory as its owner expects it. A volume that is not
    /// published counts as unpublished.
    ///
    /// # Errors
    /// [`Situation::ForeignMount`] when another mount is at the target, or covers the plugin's;
    /// [`Situation::MountBusy`] naming the processes that use the volume.
    pub(crate) fn unpublish(&self, unpublication: &Unpublication) -> Result<()> {
        let Unpublication {
            volume_id,
            dataset,
            target,
            ..
        } = unpublication;
        let subject = Subject::at(volume_id, target.path());
        let state = VolumeState::default();
        let top = target.visible().map_err(|error| unreadable(target, error))?;
        let (origins, view) = self.view_of_target(*dataset, target, top.clone())?;
        match decide(&state, Goal::Unpublish { target: view }) {
            Action::Refuse(refusal) => return Err(subject.refuse(refusal)),
            Action::UnmountTarget => {
                if let (Some(dataset), Some(top)) = (dataset, &top)
                    && self.is_staged_mount(*dataset, top)?
                {
                    let text = format!(
                        "target_path {} is where volume {volume_id} is staged, and no target; call NodeUnstageVolume \
                         to unmount it there",
                        target.path().display()
                    );
                    return Err(Error::new(Situation::InvalidArgument, text));
                }
                let ours = |mount: &Mount| origins.as_ref().is_some_and(|origins| origins.own(mount));
                self.unmounted("unpublish", unmount_owned(target, ours, Patience::default()))
                    .map_err(|error| error.context(format!("volume {volume_id}")))?;
                let at = target.path().display();
                tracing::debug!(step = "unpublished", "Volume {volume_id} is unmounted at {at}");
                if let Some(dataset) = dataset {
                    self.targets.remove(*dataset, target.path());
                }
                self.leave_unmounted_now(unpublication)?;
            }
            _ => {
                self.refuse_overlap_of_target(target.path())?;
                self.leave_unmounted(unpublication)?;
            }
        }
        Ok(())
    }

    /// Removes the plugin's directory after an unmount, now or, if the disk refuses, in the background; or checks that the
    /// orchestrator's is empty.
    fn leave_target(&self, dataset: Option<Uuid>, target: &Target, directory: TargetDirectory) -> Result<()> {
        match directory {
            TargetDirectory::Plugins => match target.remove_directory() {
                Err(error @ TargetError::Io { .. }) => {
                    // A caller that waits for a directory never gives the lease back.
                    let dataset = dataset.unwrap_or_default();
                    self.leave(dataset, LeftoverKind::Directory, target.path(), &error);
                    Ok(())
                }
                removed => Ok(removed?),
            },
            // Mesos afterwards removes its directory recursively.
            TargetDirectory::Orchestrators => match target.check_empty() {
                Err(error @ TargetError::Io { .. }) => Err(Error::of(Situation::Busy, &error)),
                checked => Ok(checked?),
            },
        }
    }

    /// As [`Self::leave_target`], where nothing was mounted: files in the directory were never in the volume.
    fn leave_unmounted(&self, unpublication: &Unpublication) -> Result<()> {
        let Unpublication {
            volume_id,
            dataset,
            target,
            directory,
        } = unpublication;
        if !target.exists() {
            return Ok(());
        }
        match self.leave_target(*dataset, target, *directory) {
            Err(error) if error.situation() == Situation::ForeignMount => {
                let text = format!(
                    "volume {volume_id} is not mounted at {}, and the directory there is not empty, so it is left \
                     unchanged; move its content elsewhere, then call NodeUnpublishVolume again",
                    target.path().display()
                );
                Err(Error::new(Situation::ForeignMount, text))
            }
            left => left,
        }
    }

    /// Checks, for a target whose parent does not exist, that the volume is not mounted there under another mount.
    ///
    /// # Errors
    /// [`Situation::ForeignMount`] naming the mount that covers it.
    pub(crate) fn refuse_hidden(&self, volume_id: &str, dataset: Option<Uuid>, path: &Path) -> Result<()> {
        let Some(dataset) = dataset else { return Ok(()) };
        match hidden(&mount_table()?, &self.origins(dataset), path) {
            None => Ok(()),
            Some((mount, over)) => Err(Subject::at(volume_id, path).refuse(Refusal::Hidden { mount, over })),
        }
    }

    /// As [`Self::leave_target`], right after the plugin's mount was unmounted. What the mount had hidden, an earlier release let it
    /// hide, is set aside: neither may it be removed with the target, nor may it keep the volume here.
    fn leave_unmounted_now(&self, unpublication: &Unpublication) -> Result<()> {
        let Unpublication {
            volume_id,
            dataset,
            target,
            directory,
        } = unpublication;
        match self.leave_target(*dataset, target, *directory) {
            Err(error) if error.situation() == Situation::ForeignMount => {}
            left => return left,
        }
        let aside = target.set_aside()?;
        self.settings
            .metrics
            .counters()
            .count(Counter::TargetContentsSetAside);
        tracing::warn!(
            target.path = %target.path().display(),
            "Files that volume {volume_id} had hidden at {} are now at {}; they were never in the volume",
            target.path().display(),
            aside.display()
        );
        if *directory == TargetDirectory::Orchestrators {
            target.ensure_directory()?;
        }
        Ok(())
    }

    /// Whether a mount at a target is the one that staging made, or a copy of it, which has the dataset's name as well.
    fn is_staged_mount(&self, dataset: Uuid, mount: &Mount) -> Result<bool> {
        Ok(is_named_after(&mount.point, dataset)
            && self.origins(dataset).own(mount)
            && self.is_alias(&mount_table()?, dataset, mount))
    }

    fn view_of_target(
        &self,
        dataset: Option<Uuid>,
        target: &Target,
        top: Option<Mount>,
    ) -> Result<(Option<Origins>, TargetView)> {
        let origins = dataset.map(|dataset| self.origins(dataset));
        let view = match (top.map(Box::new), &origins) {
            (Some(top), Some(origins)) if origins.own(&top) => TargetView::Otherwise(top),
            (Some(top), _) => TargetView::Foreign(top),
            // Where no mount of the volume is visible, it may be hidden, or its directory may be unreachable.
            (None, Some(origins)) => match hidden(&mount_table()?, origins, target.path()) {
                Some((mount, over)) => TargetView::Hidden { mount, over },
                None => TargetView::Nothing,
            },
            (None, None) => TargetView::Nothing,
        };
        Ok((origins, view))
    }
}

impl Publication {
    fn refuse(&self, refusal: Refusal) -> Error {
        let path = match refusal {
            Refusal::NotStaged(_) => self.staging.path(),
            _ => self.target.path(),
        };
        let subject = Subject {
            flags: self.flags,
            ..Subject::at(&self.volume_id, path)
        };
        subject.refuse(refusal)
    }

    /// Refuses a target at which the mount would cover the staged volume, or lie inside it.
    fn refuse_own_directory(&self, staged: &Staged) -> Result<()> {
        let covers = matches!(
            self.target.relation_to(&self.staging)?,
            Relation::Same | Relation::Above
        );
        if covers || self.target.path().starts_with(staged.alias()) {
            return Err(self.own_directory());
        }
        Ok(())
    }

    fn own_directory(&self) -> Error {
        let text = format!(
            "target_path {} and staging_target_path {} of volume {} lie in each other; publish the volume at a directory \
             of its own",
            self.target.path().display(),
            self.staging.path().display(),
            self.volume_id
        );
        Error::new(Situation::InvalidArgument, text)
    }

    fn refuse_unstaged(&self, state: &VolumeState) -> Error {
        let goal = Goal::Publish {
            target: TargetView::Nothing,
            single: self.single_target,
            broken: None,
        };
        match decide(state, goal) {
            Action::Refuse(refusal) => self.refuse(refusal),
            // Without an alias the state is not staged, and every such state is refused.
            _ => self.refuse(Refusal::NotStaged(None)),
        }
    }

    /// Returns why the file system cannot serve this publication; one that can still be read may be published
    /// read-only.
    fn broken(&self, alias: &Mount) -> Option<String> {
        let writable = !alias.file_system_read_only() || self.flags.read_only();
        if writable && !device_is_missing(alias) {
            return None;
        }
        let how = if writable { "" } else { " for writing" };
        let fault = file_system_fault(alias).map_or_else(String::new, |fault| fault.to_string());
        Some(format!("{how}: {fault}"))
    }
}

fn unreadable(target: &Target, error: TableError) -> Error {
    Error::internal(
        format!("see what is mounted at {}", target.path().display()),
        error,
    )
}
