//! `NodePublishVolume`: a staged volume appears at a target, complete at once.

use std::sync::Arc;

use super::Core;
use super::calls::Publish;
use super::host::{Host, visible};
use super::mount::{Mount, MountTable, Origin, Target, alias_path};
use crate::error::{Error, Result, Situation};
use crate::operation::Context;

/// Publishes a volume. The same call again changes nothing.
pub(super) async fn publish(
    core: Arc<Core>,
    host: Arc<Host>,
    context: Context,
    publish: Publish,
) -> Result<()> {
    context.about(publish.dataset);
    let staging = core
        .resolve("staging_target_path", publish.staging.clone())
        .await?;
    let target = core.resolve("target_path", publish.target.clone()).await?;
    let _guard = loop {
        context.caller_waiting().await?;
        let guard = core.locks.lock(&context, publish.dataset).await?;
        // The caller may have left while another operation had the lock; nothing is mounted for nobody.
        if context.is_wanted() {
            break guard;
        }
    };
    host.blocking(move |host| {
        Publication {
            host,
            publish: &publish,
            staging: &staging,
            target: &target,
        }
        .run()
    })
    .await
}

/// One publication, made of blocking steps.
struct Publication<'a> {
    host: &'a Host,
    publish: &'a Publish,
    staging: &'a Target,
    target: &'a Target,
}

impl Publication<'_> {
    fn run(&self) -> Result<()> {
        let (alias, origin) = self.staged()?;
        if let Some(found) = visible(self.target.path())? {
            return self.compare(&found, &origin);
        }
        if self.publish.single_target {
            self.refuse_second_target(&origin)?;
        }
        self.host.vantage().check(self.target.path())?;
        let made = self.target.make_directory()?;
        let bound = self
            .host
            .binder()
            .bind(&alias, self.target.path(), self.publish.flags);
        if bound.is_err() && made {
            // What is reported is why there is no mount; a directory that cannot go is found by the next call.
            self.target.remove_directory().ok();
        }
        bound?;
        Ok(())
    }

    /// Returns our mount at the staging path, which must be there, sound, and protected by a pin.
    fn staged(&self) -> Result<(Mount, Origin)> {
        let dataset = self.publish.dataset;
        let path = alias_path(self.staging.path(), dataset);
        let not_staged = |what: &str| {
            let text = format!(
                "volume {} is not staged at {}: {what}; call NodeStageVolume first",
                self.publish.volume_id,
                self.staging.path().display()
            );
            Error::new(Situation::NotStaged, text)
        };
        let alias = visible(&path)?.ok_or_else(|| not_staged("nothing is mounted there"))?;
        let Some(origin) = self
            .host
            .origins_of(dataset)
            .into_iter()
            .find(|origin| origin.owns(&alias))
        else {
            return Err(not_staged(&format!("{alias} is there instead")));
        };
        if !self.host.is_pinned(dataset) {
            return Err(not_staged(
                "Flocker's own mount of it has gone, so nothing keeps it on this node",
            ));
        }
        Ok((alias, origin))
    }

    /// Answers a publication at a target where something is mounted already.
    fn compare(&self, found: &Mount, origin: &Origin) -> Result<()> {
        let (volume, target) = (&self.publish.volume_id, self.target.path().display());
        if !origin.owns(found) {
            let text = format!(
                "volume {volume} cannot be published at {target}: {found} is mounted there and is not ours; unmount it \
                 or use another target_path"
            );
            return Err(Error::new(Situation::ForeignMount, text));
        }
        if self.publish.flags.satisfied_by(found) {
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
        let table = MountTable::read().map_err(|error| Error::internal("read the mount table", error))?;
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
