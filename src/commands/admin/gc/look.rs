//! One examination of this machine, and what it says of each thing that may be left.

use std::path::PathBuf;
use std::sync::Arc;

use uuid::Uuid;

use crate::commands::admin::args::AdminArgs;
use crate::commands::admin::survey::Survey;
use crate::commands::failure::Failure;
use crate::error;
use crate::flocker::cluster::Cluster;
use crate::host::LocalView;
use crate::host::garbage::{Garbage, GarbageKind, find, staging_is_missing};
use crate::host::records::Record;
use crate::telemetry::spawn_blocking;

/// What Flocker and this machine say at one moment.
pub(super) struct Look {
    /// The cluster, or why Flocker cannot be asked.
    pub(super) survey: Result<Survey, String>,
    /// Read after the cluster was.
    pub(super) local: Arc<LocalView>,
    pub(super) takeover_grace: std::time::Duration,
    found: Vec<Garbage>,
    problems: Vec<String>,
}

/// Something that is left or kept, with the reason.
pub(super) type Judged = Vec<(Garbage, String)>;

impl Look {
    /// Asks Flocker, and examines this machine.
    ///
    /// # Errors
    /// This machine's records or mounts cannot be read.
    pub(super) async fn take(
        cluster: &Cluster,
        args: &AdminArgs,
        staging_roots: &[PathBuf],
    ) -> Result<Self, Failure> {
        let survey = Survey::of(cluster.clone(), &args.node, args.directories()).await;
        let (directories, roots) = (args.directories(), staging_roots.to_vec());
        let local = spawn_blocking(move || {
            let local = LocalView::read(directories)?;
            let (found, problems) = find(&local, &roots);
            Ok::<_, error::Error>((local, found, problems))
        });
        let local = local
            .await
            .map_err(|error| Failure::context("read what this machine knows", &error))?;
        let (local, found, problems) = local.map_err(|error| Failure::of(&error))?;
        Ok(Self {
            survey: survey.map_err(|failure| failure.lines().join("; ")),
            local: Arc::new(local),
            takeover_grace: args.node_loss.takeover_grace,
            found,
            problems,
        })
    }

    /// Returns what could not be found out.
    pub(super) fn unknown(&self) -> Vec<String> {
        let mut unknown = self.problems.clone();
        unknown.extend(
            self.local
                .unreadable_records()
                .iter()
                .map(|error| error::chain(error)),
        );
        if let Err(why) = &self.survey {
            unknown.push(format!(
                "records and leases cannot be judged, because Flocker cannot be asked: {why}"
            ));
        }
        unknown
    }

    /// Returns what is left, and what is in use although no record that is needed names it.
    ///
    /// # Errors
    /// The examination of this machine failed.
    pub(super) async fn left(&self) -> Result<(Judged, Judged), Failure> {
        let (mut left, mut kept) = (Vec::new(), Vec::new());
        for garbage in &self.found {
            let Ok(reason) = self.reason(garbage) else {
                continue;
            };
            match self.use_of(garbage).await? {
                None => left.push((garbage.clone(), reason)),
                Some(used) => kept.push((garbage.clone(), used)),
            }
        }
        Ok((left, kept))
    }

    /// Returns why something is left that was found earlier, or in the inner error why it is not.
    ///
    /// # Errors
    /// The examination of this machine failed.
    pub(super) async fn is_left(&self, garbage: &Garbage) -> Result<Result<String, String>, Failure> {
        if !self.found.contains(garbage) {
            return Ok(Err("it has changed since it was found".to_owned()));
        }
        let reason = match self.reason(garbage) {
            Ok(reason) => reason,
            Err(why) => return Ok(Err(why)),
        };
        Ok(self.use_of(garbage).await?.map_or(Ok(reason), Err))
    }

    async fn use_of(&self, garbage: &Garbage) -> Result<Option<String>, Failure> {
        let (local, garbage) = (Arc::clone(&self.local), garbage.clone());
        spawn_blocking(move || garbage.use_of(&local))
            .await
            .map_err(|error| Failure::context("search for uses on this machine", &error))
    }

    /// Returns why nothing needs it, or in the error why something does; whether anything uses it is another question.
    fn reason(&self, garbage: &Garbage) -> Result<String, String> {
        match (garbage.kind, garbage.dataset, &garbage.records[..]) {
            (GarbageKind::UnfinishedFile, None, _) => {
                Ok("a process that was killed was writing it".to_owned())
            }
            (GarbageKind::UnfinishedFile, ..) => Ok("a process that was killed was making it".to_owned()),
            (GarbageKind::Note, ..) => Ok("the directory that it notes no longer exists".to_owned()),
            (_, Some(_), [first, rest @ ..]) => {
                for record in rest {
                    self.is_over(record)?;
                }
                self.is_over(first)
            }
            (GarbageKind::Directory, Some(dataset), []) if garbage.note.is_none() => {
                self.exists_in_flocker(dataset)?;
                Ok("the volume has no record here, and is not mounted".to_owned())
            }
            _ => Ok("the volume has no record here, and is not mounted".to_owned()),
        }
    }

    /// A directory is known to be of a volume only if Flocker knows that.
    fn exists_in_flocker(&self, dataset: Uuid) -> Result<(), String> {
        match self.survey()?.snapshot.dataset(dataset) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("no volume is known by that name".to_owned()),
            Err(error) => Err(error.chain()),
        }
    }

    fn survey(&self) -> Result<&Survey, String> {
        let asked = self.survey.as_ref();
        asked.map_err(|why| format!("Flocker cannot be asked: {why}"))
    }

    /// Returns why a staging is over, as far as Flocker and the staging path say.
    fn is_over(&self, record: &Record) -> Result<String, String> {
        let survey = self.survey()?;
        let id = record.dataset_id;
        let this = survey.this_node.map(|this| this.uuid);
        match survey.snapshot.lease(id) {
            Err(unreadable) => return Err(unreadable.chain()),
            Ok(Some(lease)) if this == Some(lease.node_uuid) => {
                return Err("this machine's node holds its lease".to_owned());
            }
            Ok(Some(_)) if this.is_none() => {
                return Err("it is leased, and which node this machine is is not known".to_owned());
            }
            Ok(_) => {}
        }
        match survey.snapshot.dataset(id) {
            Err(unreadable) => Err(unreadable.chain()),
            Ok(Some(dataset)) if dataset.deleted => Ok("the volume is deleted".to_owned()),
            Ok(Some(_)) if staging_is_missing(record) => Ok(format!(
                "its staging path {} no longer exists, the volume is not mounted, and this machine's node does not hold its \
                 lease",
                record.staging_path.display()
            )),
            Ok(Some(_)) => Err("the volume exists".to_owned()),
            // Another cluster, or one that has lost its configuration, does not list the volume either.
            Ok(None) if !this.is_some_and(|this| survey.snapshot.lists_node(this)) => Err(
                "Flocker does not list this machine's node, so it proves nothing that it does not list the volume"
                    .to_owned(),
            ),
            Ok(None) if !survey.snapshot.states(id).is_empty() => {
                Err("a node reports it to Flocker, although it is not configured".to_owned())
            }
            Ok(None) => Ok("Flocker lists this machine's node, but not the volume".to_owned()),
        }
    }
}
