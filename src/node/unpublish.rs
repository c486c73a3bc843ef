//! `NodeUnpublishVolume`: unmounts a volume from a target, and removes the empty directory where that is the plugin's.

use std::sync::Arc;

use uuid::Uuid;

use super::operations::Unpublish;
use super::paths::resolve_existing;
use super::{NodeCore, about};
use crate::error::Result;
use crate::host::{Host, Unpublication};
use crate::operation::Context;
use crate::volume::dataset_of;

/// Unpublishes a volume. A volume that is not published counts as unpublished.
pub(super) async fn unpublish(
    core: Arc<NodeCore>,
    host: Arc<Host>,
    context: Context,
    unpublish: Unpublish,
) -> Result<()> {
    let dataset = match dataset_of(&unpublish.volume_id) {
        Some(dataset) => Some(dataset),
        None => dataset_published(&core, &host, &context, &unpublish).await?,
    };
    if let Some(dataset) = dataset {
        about(&context, &host, dataset);
    }
    let Unpublish {
        volume_id,
        target: spelled,
        directory,
    } = unpublish;
    let (_guard, permit) = core.lock_for_paths(&host, &context, dataset, &[&spelled]).await?;
    host.blocking_on_paths(permit, move |host, permit| {
        match resolve_existing("target_path", &spelled, permit)? {
            Some(target) => host.unpublish(&Unpublication {
                volume_id,
                dataset,
                target,
                directory,
            }),
            None => host.refuse_hidden(&volume_id, dataset, spelled.as_path()),
        }
    })
    .await
}

/// Returns the dataset that a name stands for at the target.
async fn dataset_published(
    core: &NodeCore,
    host: &Arc<Host>,
    context: &Context,
    unpublish: &Unpublish,
) -> Result<Option<Uuid>> {
    let permit = core.enter(context, &[unpublish.target.as_path()]).await?;
    let (volume_id, target) = (unpublish.volume_id.clone(), unpublish.target.clone());
    host.blocking_on_paths(permit, move |host, permit| {
        let resolved = resolve_existing("target_path", &target, permit)?;
        let path = resolved.as_ref().map_or(target.as_path(), |target| target.path());
        host.dataset_at(path, &volume_id)
    })
    .await
}
