//! Resolution of volume ids to datasets, where a volume id may be a name that a person chose.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use super::NodeCore;
use super::operations::Stage;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Lists, dataset_named, similar_name};
use crate::flocker::provisioning::{NewVolume, Placement};
use crate::host::Host;
use crate::operation::Context;
use crate::volume::{
    FLOCKER_ID_KEY, FirstUse, NAME_KEY, Parameters, SizeRange, VolumeName, VolumeReference, size_of,
    size_text,
};

impl NodeCore {
    /// Returns the dataset to stage; one for a new name is created where the volume's context requests it.
    ///
    /// A name stands for the dataset that was staged under it at this path, so that staging it again needs no Flocker.
    pub(super) async fn dataset_to_stage(
        &self,
        host: &Arc<Host>,
        context: &Context,
        stage: &Stage,
        staging: &Path,
    ) -> Result<Uuid> {
        let first_use = match &stage.volume {
            VolumeReference::Dataset(dataset) => return Ok(*dataset),
            VolumeReference::Name { first_use } => first_use.as_ref(),
        };
        let name = &stage.volume_id;
        if let Some(dataset) = host.staged_dataset(staging, name) {
            return Ok(dataset);
        }
        let similar = match self.look_up(context, name, first_use).await? {
            LookedUp::Found(dataset) => return Ok(dataset),
            LookedUp::Missing { similar } => similar,
        };
        let (Some(first_use), Some(provisioner)) = (first_use, &self.first_use) else {
            return Err(unknown_name(name, &similar, first_use.is_some()));
        };
        let sizes = provisioner.settings().sizes;
        let range = first_use.size.map_or(Ok(SizeRange::default()), SizeRange::from)?;
        let wanted = NewVolume {
            name: VolumeName::parse(name)?,
            range,
            size: sizes.choose(range)?,
            parameters: Parameters {
                profile: first_use.profile.clone(),
                metadata: [(FLOCKER_ID_KEY.to_owned(), name.clone())].into(),
            },
        };
        let placement = Placement::default();
        match provisioner.provision(context, &wanted, &placement).await {
            Ok(made) => Ok(made.dataset),
            // Another client created it at the same time with other values; it is used as it is, as on every later use.
            Err(error) if error.situation() == Situation::Incompatible => {
                match self.look_up(context, name, Some(first_use)).await? {
                    LookedUp::Found(dataset) => Ok(dataset),
                    LookedUp::Missing { .. } => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn look_up(&self, context: &Context, name: &str, first_use: Option<&FirstUse>) -> Result<LookedUp> {
        let snapshot = self.cluster.fresh_for(context, Lists::CONFIGURATION).await?;
        let Some(found) = dataset_named(&snapshot, name)? else {
            let similar = similar_name(&snapshot, name);
            return Ok(LookedUp::Missing { similar });
        };
        let size = size_of(found.maximum_size, None);
        if let Some(wanted) = first_use
            .and_then(|first_use| first_use.size)
            .filter(|wanted| *wanted > size)
        {
            tracing::warn!(
                volume.id = %found.dataset_id,
                "Dataset {} is used for {name:?} as it is, with {}: flocker.size asks for {}, but counts only when a \
                 dataset is made",
                found.dataset_id,
                size_text(size),
                size_text(wanted)
            );
        }
        Ok(LookedUp::Found(found.dataset_id))
    }
}

/// The outcome of looking up a name.
enum LookedUp {
    Found(Uuid),
    Missing {
        /// What to add to a message: a name that exists and resembles this one, if there is one.
        similar: String,
    },
}

/// Returns the error for a name that no live dataset has; `asked` says whether its context requests to create one.
fn unknown_name(name: &str, similar: &str, asked: bool) -> Error {
    let what_to_do = match Uuid::try_parse(name) {
        Ok(id) => format!("a dataset's id is written as {id}"),
        Err(_) if asked => {
            "flocker.create=true makes one only where the plugin's setting create_on_first_use is on"
                .to_owned()
        }
        Err(_) => "check it for a typo, or create the volume".to_owned(),
    };
    Error::new(
        Situation::UnknownVolume,
        format!(
            "volume {name:?} does not exist: no live dataset has that {FLOCKER_ID_KEY} or {NAME_KEY} in its \
             metadata{similar}; {what_to_do}"
        ),
    )
}
