//! `NodeStageVolume`: the dataset that Flocker has mounted here becomes a mount of ours.
//!
//! The order is what keeps data safe. The record is on the disk before anything is mounted, so that a process that is
//! killed leaves nothing unknown. The pin comes before the last look at Flocker, so that what that look says stays
//! true: from the pin on the agent cannot unmount the dataset here, and so no other node can get it.

use std::sync::Arc;

use uuid::Uuid;

use super::NodeCore;
use super::calls::Stage;
use super::paths::resolve;
use super::unstage::Remainder;
use crate::error::{Error, Result, Situation};
use crate::flocker::attach::OtherNodesLease;
use crate::flocker::cluster::{Lists, Snapshot};
use crate::host::{Host, PathPermit, Staged, Wish};
use crate::operation::Context;
use host_fs::mount::{Mount, Target, TargetError, TargetPath};

/// How often staging starts over when Flocker's mount is replaced under it.
const RESTARTS: u32 = 5;

/// Stages a volume. A final error leaves nothing of it behind.
pub(super) async fn stage(
    core: Arc<NodeCore>,
    host: Arc<Host>,
    context: Context,
    stage: Stage,
) -> Result<()> {
    let spelled = stage.staging.clone();
    let permit = core.enter(&context, &[spelled.as_path()]).await?;
    let staging = host
        .blocking_on_paths(permit, move |_, permit| existing(&spelled, permit))
        .await?;
    let dataset = core.dataset_to_stage(&host, &context, &stage, &staging).await?;
    context.about(dataset);
    let staging_attempt = StagingAttempt {
        core: &core,
        host: &host,
        context: &context,
        stage: &stage,
        dataset,
        staging: &staging,
    };
    let ended = staging_attempt.run().await;
    match ended {
        Err(error) if error.situation().is_final() => match staging_attempt.undo().await {
            Ok(()) => Err(error),
            // A final answer would promise that nothing is left, so the orchestrator has to come back.
            Err(left) => Err(Error::new(
                Situation::Busy,
                format!("{}; and undoing it failed: {}", error.chain(), left.chain()),
            )),
        },
        ended => ended,
    }
}

/// What one run of the steps that mount ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MountOutcome {
    Mounted,
    /// Flocker's mount has gone, or another has taken its place.
    Replaced,
    /// Nobody waits for it at this moment, and nothing is mounted for nobody.
    Unwanted,
}

struct StagingAttempt<'a> {
    core: &'a Arc<NodeCore>,
    host: &'a Arc<Host>,
    context: &'a Context,
    stage: &'a Stage,
    dataset: Uuid,
    staging: &'a Target,
}

impl StagingAttempt<'_> {
    async fn run(&self) -> Result<()> {
        let node = self.context.unless_cancelled((self.core.this_node)()).await?;
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

    /// Whether everything is as a successful call would leave it; that needs no Flocker, which may be what names the node.
    async fn already_staged(&self, node: Option<Uuid>) -> Result<bool> {
        let (staged, volume_id) = (self.staged(), self.stage.volume_id.clone());
        let _guard = self.core.locks.lock(self.context, self.dataset).await?;
        self.host
            .blocking(move |host| host.is_staged(&staged, &volume_id, node))
            .await
    }

    async fn write_record(&self, node: Uuid) -> Result<()> {
        let _guard = self.core.locks.lock(self.context, self.dataset).await?;
        let (staged, volume_id) = (self.staged(), self.stage.volume_id.clone());
        let takes_lease = self.stage.takes_lease;
        self.host
            .blocking(move |host| host.begin_staging(&staged, &volume_id, node, takes_lease))
            .await
    }

    /// Pins Flocker's mount, checks the right to it, and mounts the alias. Unless it is mounted, nothing stays pinned:
    /// a pin that nothing needs would keep the dataset on this node until the plugin ends.
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
        if !self.context.is_wanted() {
            return Ok(MountOutcome::Unwanted);
        }
        let (flocker, staging) = (flocker.clone(), self.staging.clone());
        let mounted = self
            .host
            .blocking(move |host| host.mount_alias(dataset, &flocker, &staging))
            .await?;
        Ok(if mounted {
            MountOutcome::Mounted
        } else {
            MountOutcome::Replaced
        })
    }

    fn staged(&self) -> Staged {
        Staged::new(self.dataset, self.staging)
    }

    async fn undo(&self) -> Result<()> {
        let staged = self.staged();
        let cleared = self.core.clear(self.context, self.host, &staged, Wish::UndoStage);
        match cleared.await? {
            Remainder::Nothing => Ok(()),
            Remainder::Lease => Err(Error::new(
                Situation::FlockerUnavailable,
                format!(
                    "Flocker has not released the lease on volume {} yet",
                    self.stage.volume_id
                ),
            )),
        }
    }
}

/// Resolves the staging path, which has to exist. Blocks.
fn existing(staging: &TargetPath, permit: &mut PathPermit) -> Result<Target> {
    let staging = resolve("staging_target_path", staging, permit)?;
    if staging.exists() {
        return Ok(staging);
    }
    let missing = TargetError::NoParent(staging.path().to_owned());
    Err(Error::from(missing).context("staging_target_path"))
}

/// Checks that the dataset is this node's at Flocker: lease, primary, and not deleted.
pub(super) fn may_use(snapshot: &Snapshot, dataset: Uuid, node: Uuid) -> Result<()> {
    let refuse = |text: String| Err(Error::new(Situation::NotStaged, text));
    let Some(configured) = snapshot.live_dataset(dataset) else {
        return Err(Error::unknown_volume(dataset));
    };
    match snapshot.lease(dataset) {
        Some(lease) if lease.node_uuid == node => {}
        Some(lease) => {
            return refuse(format!(
                "volume {dataset} is not attached to this node, {node}: node {} holds its lease; unpublish it there and \
                 publish it to this node first",
                lease.node_uuid
            ));
        }
        None => {
            return refuse(format!(
                "volume {dataset} is not attached to this node, {node}: nobody holds its lease; call \
                 ControllerPublishVolume first"
            ));
        }
    }
    if configured.primary == node {
        Ok(())
    } else {
        refuse(format!(
            "volume {dataset} is leased to this node, {node}, but Flocker was told to move it to node {}; publish it again",
            configured.primary
        ))
    }
}
