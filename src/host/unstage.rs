//! The steps of unstaging, and of undoing a staging, in the order that matters: unmount, lease, pin, then directories and
//! device node, then records. None of them needs a disk to take anything, and none waits for a later one.

use std::collections::BTreeSet;
use std::path::PathBuf;

use host_fs::mount::{Mount, Patience};
use uuid::Uuid;

use super::Host;
use super::evidence::{Origins, Staged, layers, mount_table};
use super::leftovers::LeftoverKind;
use super::lifecycle::{Action, Afterwards, Goal, decide};
use super::mount::Aliases;
use super::records::{Record, RecordState};
use super::refusals::Subject;
use crate::error::{Error, Result, Situation, chain};
use crate::telemetry::Counter;
use crate::volume::release_of_any;

/// What is left of a volume after its alias is unmounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unmounted {
    /// Nothing was to be done: the lease is about to be released, by an operation that may hold the dataset's lock, or what
    /// is mounted is not the undone staging's.
    Nothing,
    /// It is unmounted; this follows.
    Then(Ended),
}

/// What follows after the alias is unmounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The volume.
    pub(crate) dataset: Uuid,
    /// Whether this process has no further use for Flocker's mount and the device node.
    pub(crate) unpin: bool,
    /// The stagings that are over and whose lease is to be released.
    pub(crate) leases: Vec<Staged>,
    /// The other stagings that are over.
    pub(crate) others: Vec<Staged>,
    /// The device nodes that the plugin's mounts were made from.
    nodes: BTreeSet<PathBuf>,
    /// Whether another mount covers the directory of the staging, so that it stays.
    covered: bool,
}

impl Host {
    /// Unmounts the dataset from a staging path, and returns what follows.
    ///
    /// When the last mount of the dataset has gone with it, every staging of this boot whose mount was there is over: a
    /// bind mount of a directory shows one staging at several paths, and it is unstaged from any of them.
    ///
    /// # Errors
    /// [`Situation::MountBusy`] while the volume is published or in use; [`Situation::ForeignMount`] when another mount
    /// is at the staging path, unless a failed staging is undone, which never mounted there.
    pub(crate) fn unmount_alias(&self, staged: &Staged, goal: Goal) -> Result<Unmounted> {
        let Staged { dataset, staging } = staged;
        let state = self.state_in(&mount_table()?, staged)?;
        let (leave_foreign, mut afterwards) = match decide(&state, goal.clone()) {
            Action::UnmountAlias {
                leave_foreign,
                afterwards,
            } => (leave_foreign, afterwards),
            Action::Refuse(refusal) => {
                return Err(Subject::staging(&dataset.to_string(), staged).refuse(refusal));
            }
            _ => return Ok(Unmounted::Nothing),
        };
        let origins = self.origins(*dataset);
        let found = layers(&staged.alias())?;
        let is_foreign = !found.is_empty() && !found.iter().any(|mount| origins.own(mount));
        let covered = leave_foreign && is_foreign;
        let mut unmounted = 0;
        if !covered {
            let owned = |mount: &Mount| origins.own(mount);
            let attempt = Aliases::unmount(*dataset, staging, owned, Patience::default());
            unmounted = self.unmounted("unstage", attempt)?;
        }
        tracing::debug!(
            volume.id = %dataset,
            step = "unmounted",
            "Dataset {dataset} is unmounted at {}, from where {unmounted} mounts of the plugin were removed",
            staging.display()
        );
        if unmounted == 0 && found.iter().any(|mount| origins.own(mount)) {
            // Another process has unmounted it, or has moved the directory with it.
            if let Action::Refuse(refusal) = decide(&self.state_in(&mount_table()?, staged)?, goal.clone()) {
                return Err(Subject::staging(&dataset.to_string(), staged).refuse(refusal));
            }
        }
        let over = self.over_with(staged, &origins, unmounted)?;
        if !over.is_empty() {
            let state = self.state_after(staged, &over)?;
            if let Action::UnmountAlias { afterwards: then, .. } = decide(&state, goal) {
                afterwards = then;
            }
        }
        let ended = self.ended(staged, over, afterwards);
        Ok(Unmounted::Then(Ended { covered, ..ended }))
    }

    /// Returns the stagings of the dataset in this boot at other paths that end in the same name, where none is recorded
    /// at the path itself.
    pub(crate) fn namesakes(&self, staged: &Staged) -> Vec<Staged> {
        let dataset = staged.dataset;
        if self.records.get(dataset, &staged.staging).is_some() {
            return Vec::new();
        }
        let mut records = self.records.of(dataset);
        records.retain(|record| {
            record.may_be_mounted(self.boot_id)
                && record.staging_path.file_name() == staged.staging.file_name()
        });
        let staged = |Record { staging_path, .. }| Staged {
            dataset,
            staging: staging_path,
        };
        records.into_iter().map(staged).collect()
    }

    /// Returns the other stagings of the dataset that are over, because its last mount has just been unmounted.
    ///
    /// That there is no mount proves nothing by itself: this process may not see the mounts of an earlier one.
    fn over_with(&self, staged: &Staged, origins: &Origins, unmounted: usize) -> Result<Vec<Record>> {
        let mut others = self.records.of(staged.dataset);
        others.retain(|record| {
            // One that has begun and is not mounted yet continues.
            record.boot_id == self.boot_id
                && record.state == RecordState::Staged
                && record.staging_path != staged.staging
        });
        if unmounted == 0 || others.is_empty() {
            return Ok(Vec::new());
        }
        let table = mount_table()?;
        let is_mounted = table.mounts().iter().any(|mount| origins.are_used_by(mount));
        Ok(if is_mounted { Vec::new() } else { others })
    }

    fn ended(&self, staged: &Staged, over: Vec<Record>, afterwards: Afterwards) -> Ended {
        let dataset = staged.dataset;
        let mut ended = Ended {
            dataset,
            unpin: afterwards.unpin,
            leases: Vec::new(),
            others: Vec::new(),
            nodes: self.device_nodes(dataset),
            covered: false,
        };
        let own = self.records.get(dataset, &staged.staging);
        let own = (staged.clone(), own.is_some_and(|record| record.takes_lease));
        let over = over.into_iter().map(|record| {
            let staging = record.staging_path;
            (Staged { dataset, staging }, record.takes_lease)
        });
        for (staged, takes_lease) in std::iter::once(own).chain(over) {
            if afterwards.release_lease && takes_lease {
                ended.leases.push(staged);
            } else {
                ended.others.push(staged);
            }
        }
        ended
    }

    /// Removes what the unmounted stagings need no more: directories, then the device node, then the records of those
    /// whose lease is not to be released. What cannot be removed now is removed in the background.
    pub(crate) fn clean_up(&self, ended: &Ended) {
        for staged in ended.leases.iter().chain(&ended.others) {
            if !ended.covered {
                self.remove_directory_of(staged.dataset, &staged.alias());
            }
        }
        if ended.unpin {
            for node in &ended.nodes {
                if let Err(error) = self.aliases.forget_device(ended.dataset, node) {
                    self.leave(ended.dataset, LeftoverKind::DeviceNode, node, &error);
                }
            }
        }
        for staged in &ended.leases {
            // The record stays until the lease is released.
            if let Some(record) = self.records.get(staged.dataset, &staged.staging) {
                self.remove_made_directories(&record);
            }
        }
        for staged in &ended.others {
            self.forget(staged);
        }
    }

    /// Removes the record of a staging that is over, and before it the directories it notes, now or later.
    pub(crate) fn forget(&self, staged: &Staged) {
        if let Some(record) = self.records.get(staged.dataset, &staged.staging) {
            self.remove_made_directories(&record);
        }
        let Staged { dataset, staging } = staged;
        tracing::debug!(
            volume.id = %dataset,
            step = "forgotten",
            "The staging of dataset {dataset} at {} is over",
            staging.display()
        );
        if let Err(error) = self.records.forget(*dataset, staging) {
            self.leave(*dataset, LeftoverKind::Record, staging, &error);
        }
    }

    /// Records that the volume is unmounted and the lease is to be released.
    ///
    /// Another process needs that record if this one ends before the lease is released. A disk that does not take it holds
    /// nothing else up.
    pub(crate) fn mark_release_pending(&self, staged: &Staged) {
        let Some(record) = self.records.get(staged.dataset, &staged.staging) else {
            return;
        };
        let record = Record {
            state: RecordState::ReleasePending,
            ..record
        };
        if let Err(error) = self.records.write_or_remember(&record) {
            self.settings.metrics.counters().count(Counter::RecordsNotWritten);
            tracing::warn!(
                volume.id = %staged.dataset,
                error = %chain(&error),
                "Volume {} is unmounted from {}, which cannot be recorded: its lease is released by this process only; {}",
                staged.dataset,
                staged.staging.display(),
                release_of_any(staged.dataset)
            );
        }
    }

    /// Checks, after a volume is unstaged, that its record could be read. It is set aside, so that the next call succeeds.
    ///
    /// # Errors
    /// [`Situation::Busy`] naming the record, once for each.
    pub(crate) fn check_readable(&self, staged: &Staged) -> Result<()> {
        let Some(reason) = self.records.set_aside(staged.dataset, &staged.staging) else {
            return Ok(());
        };
        let text = format!(
            "volume {} is unmounted from {}, but it is not known whether this node still holds a lease for that staging: \
             {reason}. The lease is not released: {}. Calling NodeUnstageVolume again succeeds",
            staged.dataset,
            staged.staging.display(),
            release_of_any(staged.dataset)
        );
        tracing::error!(volume.id = %staged.dataset, "{text}");
        Err(Error::new(Situation::Busy, text))
    }
}
