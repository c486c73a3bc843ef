//! `NodePublishVolume`: a staged volume appears at a target, complete at once.

use std::sync::Arc;

use uuid::Uuid;

use super::NodeCore;
use super::calls::Publish;
use super::paths::resolve;
use crate::error::{Error, Result, Situation};
use crate::host::{Host, Publication};
use crate::operation::Context;
use crate::volume::dataset_of;

/// Publishes a volume. The same call again changes nothing.
pub(super) async fn publish(
    core: Arc<NodeCore>,
    host: Arc<Host>,
    context: Context,
    publish: Publish,
) -> Result<()> {
    let dataset = match dataset_of(&publish.volume_id) {
        Some(dataset) => dataset,
        None => dataset_staged(&core, &host, &context, &publish).await?,
    };
    context.about(dataset);
    let (_guard, permit) = loop {
        context.caller_waiting().await?;
        let paths = [&publish.staging, &publish.target];
        let entered = core
            .lock_for_paths(&host, &context, Some(dataset), &paths)
            .await?;
        // The caller may have left during the wait for the lock; nothing is mounted for no caller.
        if context.is_wanted() {
            break entered;
        }
    };
    // One job: a hand-over to another thread costs more than what it does.
    host.blocking_on_paths(permit, move |host, permit| {
        host.publish(&Publication {
            dataset,
            staging: resolve("staging_target_path", &publish.staging, permit)?,
            target: resolve("target_path", &publish.target, permit)?,
            volume_id: publish.volume_id,
            directory: publish.directory,
            flags: publish.flags,
            single_target: publish.single_target,
        })
    })
    .await
}

/// Returns the dataset that a name stands for: what it meant when the volume was staged.
async fn dataset_staged(
    core: &NodeCore,
    host: &Arc<Host>,
    context: &Context,
    publish: &Publish,
) -> Result<Uuid> {
    let permit = core.enter(context, &[publish.staging.as_path()]).await?;
    let (volume_id, staging) = (publish.volume_id.clone(), publish.staging.clone());
    host.blocking_on_paths(permit, move |host, permit| {
        let staging = resolve("staging_target_path", &staging, permit)?;
        host.recorded_dataset(staging.path(), &volume_id).ok_or_else(|| {
            let text = format!(
                "volume {volume_id:?} is not staged at {}: call NodeStageVolume first",
                staging.path().display()
            );
            Error::new(Situation::NotStaged, text)
        })
    })
    .await
}
