//! `NodePublishVolume`: a staged volume appears at a target, complete at once.

use std::sync::Arc;

use uuid::Uuid;

use super::Core;
use super::calls::{Publish, TargetDirectory};
use crate::error::{Error, Result, Situation};
use crate::host::Host;
use crate::host::mount::{Origin, device_is_missing, file_system_fault};
use crate::host::mount_table;
use crate::operation::Context;
use crate::volume::dataset_of;
use host_fs::mount::{Mount, MountHandle, Target};

/// Publishes a volume. The same call again changes nothing.
pub(super) async fn publish(
    core: Arc<Core>,
    host: Arc<Host>,
    context: Context,
    publish: Publish,
) -> Result<()> {
    let staging = core
        .resolve("staging_target_path", publish.staging.clone())
        .await?;
    let dataset = dataset_staged(&host, &publish, &staging)?;
    context.about(dataset);
    let target = core.resolve("target_path", publish.target.clone()).await?;
    let _guard = loop {
        context.caller_waiting().await?;
        let guard = core.locks.lock(&context, dataset).await?;
        // The caller may have left while another operation had the lock; nothing is mounted for nobody.
        if context.is_wanted() {
            break guard;
        }
    };
    host.blocking(move |host| {
        Publication {
            host,
            publish: &publish,
            dataset,
            staging: &staging,
            // The caller may have waited for the lock since it was opened.
            target: target.refresh()?,
        }
        .run()
    })
    .await
}

/// Returns the dataset that a volume id stands for. A name means what it meant when the volume was staged.
fn dataset_staged(host: &Host, publish: &Publish, staging: &Target) -> Result<Uuid> {
    let Publish { volume_id, .. } = publish;
    let dataset = dataset_of(volume_id).or_else(|| host.recorded_dataset(staging.path(), volume_id));
    dataset.ok_or_else(|| {
        let text = format!(
            "volume {volume_id:?} is not staged at {}: call NodeStageVolume first",
            staging.path().display()
        );
        Error::new(Situation::NotStaged, text)
    })
}

/// One publication, made of blocking steps.
struct Publication<'a> {
    host: &'a Host,
    publish: &'a Publish,
    dataset: Uuid,
    staging: &'a Target,
    target: Target,
}

impl Publication<'_> {
    fn run(&self) -> Result<()> {
        let (alias, origin) = self.staged()?;
        let found = self.target.visible();
        if let Some(found) =
            found.map_err(|error| Error::internal("see what is mounted at target_path", error))?
        {
            return self.compare(&found, alias.mount(), &origin);
        }
        self.refuse_broken(alias.mount())?;
        if self.publish.single_target {
            self.refuse_second_target(&origin)?;
        }
        self.host.visibility().check(self.target.path())?;
        let made = match self.publish.directory {
            TargetDirectory::Ours => self.target.make_directory()?,
            TargetDirectory::Orchestrators if self.target.exists() => false,
            TargetDirectory::Orchestrators => {
                let text = format!(
                    "target_path {} does not exist: in csi.v0 the orchestrator makes that directory first",
                    self.target.path().display()
                );
                return Err(Error::new(Situation::InvalidArgument, text));
            }
        };
        let bound = self
            .host
            .binder()
            .bind(&alias, &self.target, self.publish.flags.change());
        if bound.is_err() && made {
            // What is reported is why there is no mount; a directory that cannot go is found by the next call.
            self.target.remove_directory().ok();
        }
        bound?;
        Ok(())
    }

    /// Returns our mount at the staging path, which must be there, sound, and protected by a pin.
    fn staged(&self) -> Result<(MountHandle, Origin)> {
        let dataset = self.dataset;
        let not_staged = |what: &str| {
            let text = format!(
                "volume {} is not staged at {}: {what}; call NodeStageVolume first",
                self.publish.volume_id,
                self.staging.path().display()
            );
            Error::new(Situation::NotStaged, text)
        };
        let alias = self.staging.open_mount_below(&dataset.to_string())?;
        let alias = alias.ok_or_else(|| not_staged("nothing is mounted there"))?;
        let Some(origin) = self
            .host
            .origins_of(dataset)
            .into_iter()
            .find(|origin| origin.owns(alias.mount()))
        else {
            return Err(not_staged(&format!("{} is there instead", alias.mount())));
        };
        if let Some(weakness) = self.host.weakness(dataset, alias.mount()) {
            return Err(not_staged(&weakness));
        }
        Ok((alias, origin))
    }

    /// Refuses a volume that nobody could use; one that can still be read may be published for that.
    fn refuse_broken(&self, alias: &Mount) -> Result<()> {
        let writable = !alias.file_system_read_only() || self.publish.flags.read_only();
        if writable && !device_is_missing(alias) {
            return Ok(());
        }
        let text = format!(
            "volume {} cannot be published{}: {}",
            self.publish.volume_id,
            if writable { "" } else { " for writing" },
            file_system_fault(alias).unwrap_or_default()
        );
        Err(Error::new(Situation::NotStaged, text))
    }

    /// Answers a publication at a target where something is mounted already.
    fn compare(&self, found: &Mount, alias: &Mount, origin: &Origin) -> Result<()> {
        let (volume, target) = (&self.publish.volume_id, self.target.path().display());
        if !origin.owns(found) {
            let text = format!(
                "volume {volume} cannot be published at {target}: {found} is mounted there and is not ours; unmount it \
                 or use another target_path"
            );
            return Err(Error::new(Situation::ForeignMount, text));
        }
        if found.device != alias.device {
            let text = format!(
                "volume {volume} is published at {target} already, but from device {}, and it is on device {} now; \
                 unpublish it first",
                found.device, alias.device
            );
            return Err(Error::new(Situation::ForeignMount, text));
        }
        if self.publish.flags.change().describes(found) {
            return Ok(());
        }
        let mode = if found.read_only() {
            "read-only"
        } else {
            "read-write"
        };
        let text = format!(
            "volume {volume} is published at {target} already, {mode}, which does not satisfy the flags \"{}\"; \
             unpublish it first",
            self.publish.flags
        );
        Err(Error::new(Situation::Incompatible, text))
    }

    fn refuse_second_target(&self, origin: &Origin) -> Result<()> {
        let table = mount_table()?;
        let other = table.mounts().iter().find(|mount| {
            origin.owns(mount) && !self.host.is_alias(&table, mount) && mount.point != self.target.path()
        });
        match other {
            None => Ok(()),
            Some(other) => {
                let text = format!(
                    "volume {} cannot be published at {} with SINGLE_NODE_SINGLE_WRITER: it is published at {} already",
                    self.publish.volume_id,
                    self.target.path().display(),
                    other.point.display()
                );
                Err(Error::new(Situation::SingleWriter, text))
            }
        }
    }
}
