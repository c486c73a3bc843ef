//! `NodeStageVolume`: mounts a dataset that Flocker has mounted on this node a second time, at the staging path.
//!
//! The order keeps data safe. The record is on disk before anything is mounted, so that a killed process leaves no
//! unknown mount. The pin comes before the last read of lease and primary, so that its result stays true: after the pin
//! the agent cannot unmount the dataset here, and so no other node can mount it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;
use uuid::fmt::Hyphenated;

use super::operations::Stage;
use super::paths::resolve_existing;
use super::unstage::UnstageOutcome;
use super::{NodeCore, about};
use crate::error::{Error, Result, Situation};
use crate::flocker::attach::OtherNodesLease;
use crate::flocker::cluster::{Lists, Snapshot};
use crate::host::{Goal, Host, PathPermit, Staged};
use crate::operation::Context;
use crate::telemetry::log_names::NamedNode;
use crate::volume::end_of_use;
use host_fs::mount::{Mount, Target, TargetPath};

/// How often staging restarts when Flocker's mount is replaced during it.
const RESTARTS: u32 = 5;

/// Stages a volume. After a final error, no mount, pin, record or lease of it remains.
pub(super) async fn stage(
    core: Arc<NodeCore>,
    host: Arc<Host>,
    context: Context,
    stage: Stage,
) -> Result<()> {
    let spelled = stage.staging.clone();
    let permit = core.enter(&context, &[spelled.as_path()]).await?;
    let staging = host
        .blocking_on_paths(permit, move |_, permit| resolve_staging(&spelled, permit))
        .await?;
    let dataset = core.dataset_to_stage(&host, &context, &stage, &staging).await?;
    about(&context, &host, dataset);
    let staging_attempt = StagingAttempt {
        core: &core,
        host: &host,
        context: &context,
        stage: &stage,
        dataset,
        staging: &staging,
    };
    // Nothing of it exists yet, so there is nothing to undo.
    host.refuse_overlap_of_staging(&staging_attempt.staged())?;
    let ended = staging_attempt.run().await;
    match ended {
        Err(error) if error.situation().is_final() => match staging_attempt.undo().await {
            Ok(()) => Err(error),
            // A final answer would promise that nothing is left, so this one makes the orchestrator repeat the call.
            Err(left) => Err(Error::new(
                Situation::Busy,
                format!("{}; and undoing it failed: {}", error.chain(), left.chain()),
            )),
        },
        ended => ended,
    }
}

/// The outcome of one run of the steps that mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MountOutcome {
    Mounted,
    /// Flocker's mount no longer exists, or another has taken its place.
    Replaced,
    /// No caller waits, and nothing is mounted without a caller.
    Unwanted,
}

struct StagingAttempt<'a> {
    core: &'a Arc<NodeCore>,
    host: &'a Arc<Host>,
    context: &'a Context,
    stage: &'a Stage,
    dataset: Uuid,
    staging: &'a Path,
}

impl StagingAttempt<'_> {
    async fn run(&self) -> Result<()> {
        let node = self.context.unless_cancelled((self.core.this_node)()).await?;
        self.unmount_shut_down().await?;
        if self.already_staged(node.as_ref().ok().copied()).await? {
            return Ok(());
        }
        let node = node?;
        self.write_record(node).await?;
        if self.stage.takes_lease {
            self.core
                .attach
                .attach(self.context, self.dataset, node, OtherNodesLease::WaitFor)
                .await?;
        }
        let mut replaced = 0;
        while replaced <= RESTARTS {
            let flocker = self.core.mounted_here(self.context, self.dataset, node).await?;
            self.context.caller_waiting().await?;
            match self.mount(&flocker, node).await? {
                MountOutcome::Mounted => return Ok(()),
                MountOutcome::Replaced => replaced += 1,
                MountOutcome::Unwanted => {}
            }
        }
        Err(Error::new(
            Situation::Busy,
            format!(
                "Flocker unmounted volume {} {RESTARTS} times while it was being staged; try again",
                self.stage.volume_id
            ),
        ))
    }

    /// Unmounts what is staged from a file system whose writes were stopped, so that it is staged anew: it would be refused to
    /// every publication. While anything uses it, the call is to be repeated, as what is staged stays.
    async fn unmount_shut_down(&self) -> Result<()> {
        let staged = self.staged();
        let volume_id = self.stage.volume_id.clone();
        let _guard = self.core.locks.lock(self.context, self.dataset).await?;
        self.host
            .blocking(move |host| {
                if !host.is_shut_down(&staged)? {
                    return Ok(());
                }
                tracing::warn!(
                    volume.id = %staged.dataset,
                    "Dataset {} is unmounted at {} before it is staged again: writes to its file system were stopped",
                    staged.dataset,
                    staged.staging.display()
                );
                host.unmount_to_restage(&staged).map_err(|error| {
                    Error::new(
                        Situation::Busy,
                        format!(
                            "writes to volume {volume_id} were stopped on this node, so it cannot be used before it is \
                             unmounted: {}; then it is staged again",
                            error.chain()
                        ),
                    )
                })
            })
            .await
    }

    /// Whether the volume is as a successful call leaves it; that needs no Flocker, which may be what names the node.
    async fn already_staged(&self, node: Option<Uuid>) -> Result<bool> {
        let (staged, volume_id) = (self.staged(), self.stage.volume_id.clone());
        let _guard = self.core.locks.lock(self.context, self.dataset).await?;
        let is_staged = self
            .host
            .blocking(move |host| host.is_staged(&staged, &volume_id, node))
            .await?;
        if is_staged {
            self.core.check_lease_again(self.host, self.dataset).await;
        }
        Ok(is_staged)
    }

    async fn write_record(&self, node: Uuid) -> Result<()> {
        let _guard = self.core.locks.lock(self.context, self.dataset).await?;
        let (staged, volume_id) = (self.staged(), self.stage.volume_id.clone());
        let takes_lease = self.stage.takes_lease;
        self.host
            .blocking(move |host| host.begin_staging(&staged, &volume_id, node, takes_lease))
            .await
    }

    /// Pins Flocker's mount, checks lease and primary, and mounts the alias. Unless it is mounted, nothing stays
    /// pinned: a pin that nothing needs would keep the dataset on this node until the plugin ends.
    async fn mount(&self, flocker: &Mount, node: Uuid) -> Result<MountOutcome> {
        let dataset = self.dataset;
        let _guard = self.core.locks.lock(self.context, dataset).await?;
        let pinned = flocker.clone();
        if !self.host.blocking(move |host| host.pin(dataset, &pinned)).await? {
            return Ok(MountOutcome::Replaced);
        }
        let pass = self.mount_pinned(flocker, node).await;
        if !matches!(pass, Ok(MountOutcome::Mounted)) {
            self.host
                .blocking(move |host| host.unpin_unless_mounted(dataset))
                .await?;
        }
        pass
    }

    async fn mount_pinned(&self, flocker: &Mount, node: Uuid) -> Result<MountOutcome> {
        let dataset = self.dataset;
        let lists = Lists::CONFIGURATION | Lists::LEASES;
        let snapshot = self.core.cluster.fresh_for(self.context, lists).await?;
        may_use(&snapshot, dataset, node)?;
        tracing::debug!(
            step = "confirmed",
            "Flocker confirms that dataset {dataset} is leased to node {node} and configured for it"
        );
        if flocker.file_system_shut_down() {
            return Err(self.stopped_under_flocker(flocker));
        }
        self.host.note_lease(dataset, None);
        if !self.context.is_wanted() {
            return Ok(MountOutcome::Unwanted);
        }
        let (flocker, path) = (flocker.clone(), self.staging.to_owned());
        let labels = self.context.labels();
        let mounted = self
            .host
            .blocking(move |host| {
                let staging = Target::open_resolved(&path)?;
                host.mount_alias(dataset, labels.as_deref(), &flocker, &staging)
            })
            .await?;
        Ok(if mounted {
            MountOutcome::Mounted
        } else {
            MountOutcome::Replaced
        })
    }

    /// The file system is shut down until its last mount has gone, and Flocker's agent keeps its own.
    fn stopped_under_flocker(&self, flocker: &Mount) -> Error {
        let (volume, at) = (&self.stage.volume_id, flocker.point.display());
        Error::new(
            Situation::NotStaged,
            format!(
                "the file system of volume {volume} is shut down on this node, because writes to it were stopped, and Flocker \
                 has it mounted at {at}; end what still uses it on this node, check the file system, and unmount it there \
                 (umount {at}): Flocker's agent mounts it again. Then stage the volume again"
            ),
        )
    }

    fn staged(&self) -> Staged {
        Staged {
            dataset: self.dataset,
            staging: self.staging.to_owned(),
        }
    }

    async fn undo(&self) -> Result<()> {
        let staged = self.staged();
        let cleared = self.core.clear(self.context, self.host, &staged, Goal::UndoStage);
        match cleared.await? {
            UnstageOutcome::Nothing => Ok(()),
            UnstageOutcome::Lease => Err(Error::new(
                Situation::FlockerUnavailable,
                format!(
                    "Flocker has not released the lease on volume {} yet",
                    self.stage.volume_id
                ),
            )),
        }
    }
}

/// Resolves the staging path, which need not exist. Blocks.
fn resolve_staging(staging: &TargetPath, permit: &mut PathPermit) -> Result<PathBuf> {
    let field = |error| Error::from(error).context("staging_target_path");
    let resolved = match resolve_existing("staging_target_path", staging, permit)? {
        Some(found) => found.path().to_owned(),
        None => staging.resolve_missing().map_err(field)?,
    };
    TargetPath::check_room(&resolved, Hyphenated::LENGTH).map_err(field)?;
    Ok(resolved)
}

/// Checks that the dataset is this node's at Flocker: lease, primary, and not deleted.
pub(super) fn may_use(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> Result<()> {
    let refuse = |text: String| Err(Error::new(Situation::NotStaged, text));
    let Some(configured) = snapshot.live_dataset(dataset)? else {
        return Err(Error::unknown_volume(dataset));
    };
    match snapshot.lease(dataset)? {
        Some(lease) if lease.node_uuid == node => {}
        Some(lease) => {
            return refuse(format!(
                "volume {dataset} is not attached to this node, {node}: node {} holds its lease; {}",
                NamedNode(lease.node_uuid),
                end_of_use(dataset, lease.node_uuid)
            ));
        }
        None => {
            return refuse(format!(
                "volume {dataset} is not attached to this node, {node}: no node holds its lease; call \
                 ControllerPublishVolume first"
            ));
        }
    }
    if configured.primary == node {
        Ok(())
    } else {
        refuse(format!(
            "volume {dataset} is leased to this node, {node}, but Flocker is configured to move it to node {}; call \
             ControllerPublishVolume again",
            configured.primary
        ))
    }
}
