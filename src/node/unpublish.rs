//! `NodeUnpublishVolume`: our mount at a target goes, and the empty directory with it where that is ours.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::Core;
use super::calls::{TargetDirectory, Unpublish};
use crate::error::{Error, Result, Situation};
use crate::host::Host;
use crate::host::mount_table;
use crate::operation::Context;
use crate::volume::dataset_of;
use host_fs::mount::{Mount, Patience, Target, TargetError, unmount_owned};

/// Unpublishes a volume. What is not published counts as unpublished.
pub(super) async fn unpublish(
    core: Arc<Core>,
    host: Arc<Host>,
    context: Context,
    unpublish: Unpublish,
) -> Result<()> {
    let Unpublish {
        volume_id,
        target,
        directory,
    } = unpublish;
    let spelled = target.as_path().to_owned();
    let target = core.resolve_existing("target_path", target).await?;
    let dataset = if let Some(dataset) = dataset_of(&volume_id) {
        Some(dataset)
    } else {
        let place = target.as_ref().map_or(&*spelled, Target::path).to_owned();
        let name = volume_id.clone();
        host.blocking(move |host| host.dataset_at(&place, &name)).await?
    };
    let _guard = match dataset {
        Some(dataset) => {
            context.about(dataset);
            Some(core.locks.lock(&context, dataset).await?)
        }
        None => None,
    };
    // The caller may have waited for the lock since the target was opened.
    host.blocking(move |host| match target.map(Target::refresh).transpose()? {
        Some(target) if target.exists() => {
            let unmounted = unmount(host, &target, &volume_id, dataset)?;
            leave(&target, directory, &volume_id, unmounted)
        }
        Some(_) | None => refuse_hidden(host, &spelled, dataset),
    })
    .await
}

/// Takes our mount away; answers whether there was one.
fn unmount(host: &Host, target: &Target, volume_id: &str, dataset: Option<Uuid>) -> Result<bool> {
    let path = target.path();
    let top = target.visible();
    let Some(top) = top.map_err(|error| Error::internal("see what is mounted at target_path", error))? else {
        refuse_hidden(host, path, dataset)?;
        return Ok(false);
    };
    let origins = dataset
        .map(|dataset| host.origins_of(dataset))
        .unwrap_or_default();
    let Some(origin) = origins.iter().find(|origin| origin.owns(&top)) else {
        return Err(foreign(target, volume_id, &top));
    };
    unmount_owned(target, |mount| origin.owns(mount), Patience::default())
        .map_err(|error| Error::from(error).context(format!("volume {volume_id}")))?;
    Ok(true)
}

/// Leaves nothing of ours, and nothing for the orchestrator to lose; `unmounted` tells whether a mount of ours was there.
fn leave(target: &Target, directory: TargetDirectory, volume_id: &str, unmounted: bool) -> Result<()> {
    let left = match directory {
        TargetDirectory::Ours => target.remove_directory(),
        // Mesos removes its directory afterwards with all that is in it.
        TargetDirectory::Orchestrators => target.check_empty(),
    };
    match left {
        // Without a mount of ours there, what is in the directory was never in the volume.
        Err(TargetError::NotEmpty(_)) if !unmounted => {
            let text = format!(
                "volume {volume_id} is not mounted at {}, and the directory there is not empty, so it is left alone; \
                 look at what is in it",
                target.path().display()
            );
            Err(Error::new(Situation::ForeignMount, text))
        }
        left => Ok(left?),
    }
}

/// Checks, where nothing of the volume is to be seen, that it is not hidden there either.
fn refuse_hidden(host: &Host, path: &Path, dataset: Option<Uuid>) -> Result<()> {
    match dataset {
        Some(dataset) => host.refuse_hidden(&mount_table()?, dataset, path),
        None => Ok(()),
    }
}

fn foreign(target: &Target, volume_id: &str, found: &Mount) -> Error {
    Error::new(
        Situation::ForeignMount,
        format!(
            "{} does not hold volume {volume_id} but {found}, which is not ours and is left alone",
            target.path().display()
        ),
    )
}
