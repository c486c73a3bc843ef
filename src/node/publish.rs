//! `NodePublishVolume`: mounts a staged volume at a target in one step.

use std::sync::Arc;

use uuid::Uuid;

use super::operations::Publish;
use super::paths::resolve;
use super::{NodeCore, about};
use crate::error::{Error, Result, Situation};
use crate::host::{Host, Publication};
use crate::operation::Context;
use crate::volume::dataset_of;

/// Publishes a volume. Repeating the call changes nothing.
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
    about(&context, &host, dataset);
    context.unless_cancelled(core.after_first_look()).await?;
    let (_guard, permit) = loop {
        context.caller_waiting().await?;
        let paths = [&publish.staging, &publish.target];
        let entered = core
            .lock_for_paths(&host, &context, Some(dataset), &paths)
            .await?;
        // The last caller may have stopped waiting while another operation held the lock; nothing is mounted without a
        // caller.
        if context.is_wanted() {
            break entered;
        }
    };
    // One blocking job: a switch of threads costs more than the work.
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

/// Returns the dataset for which a name stood when the volume was staged.
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
