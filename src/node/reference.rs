//! Resolution of volume ids to datasets, where a volume id may be a name that a person chose.

use std::path::Path;
use std::sync::Arc;

use flocker_client::Dataset;
use uuid::Uuid;

use super::NodeCore;
use super::operations::Stage;
use crate::error::{Error, Result, Situation};
use crate::flocker::cluster::{Lists, Snapshot};
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
        if let Some(found) = self.look_up(context, name, first_use).await? {
            return Ok(found);
        }
        let (Some(first_use), Some(provisioner)) = (first_use, &self.first_use) else {
            return Err(unknown_name(name, first_use.is_some()));
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
                let found = self.look_up(context, name, Some(first_use)).await?;
                found.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn look_up(
        &self,
        context: &Context,
        name: &str,
        first_use: Option<&FirstUse>,
    ) -> Result<Option<Uuid>> {
        let snapshot = self.cluster.fresh_for(context, Lists::CONFIGURATION).await?;
        let found = find(&snapshot, name)?;
        if let Some(found) = found {
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
        }
        Ok(found.map(|found| found.dataset_id))
    }
}

/// Finds the live dataset that has a name: first by mesos-module-flocker's key, because a dataset that has it was
/// created for tasks, then by the key of Flocker's Docker plugin, Kubernetes' old plugin and CSI.
///
/// # Errors
/// [`Situation::AmbiguousName`] listing the datasets when there are several.
fn find<'a>(snapshot: &'a Snapshot, name: &str) -> Result<Option<&'a Dataset>> {
    for key in [FLOCKER_ID_KEY, NAME_KEY] {
        let mut found = snapshot.live_datasets_with(key, name);
        if found.len() > 1 {
            let ids: Vec<_> = found
                .iter()
                .map(|dataset| dataset.dataset_id.to_string())
                .collect();
            let text = format!(
                "volume {name:?} is ambiguous: {} live datasets have that {key} in their metadata: {}; use one of these \
                 ids as the volume id, or delete those that are not needed",
                ids.len(),
                ids.join(", ")
            );
            return Err(Error::new(Situation::AmbiguousName, text));
        }
        if let Some(found) = found.pop() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Returns the error for a name that no live dataset has; `asked` says whether its context requests to create one.
fn unknown_name(name: &str, asked: bool) -> Error {
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
            "volume {name:?} does not exist: no live dataset has that {FLOCKER_ID_KEY} or {NAME_KEY} in its metadata; \
             {what_to_do}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dataset(id: u128, pairs: &[(&str, &str)], deleted: bool) -> Dataset {
        Dataset {
            dataset_id: Uuid::from_u128(id),
            primary: Uuid::from_u128(0xa),
            deleted,
            maximum_size: None,
            metadata: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            unreadable: flocker_client::UnreadableParts::default(),
        }
    }

    fn found(datasets: Vec<Dataset>) -> Result<Option<u128>> {
        let snapshot = Snapshot::of(datasets, vec![], &[], vec![]);
        find(&snapshot, "web").map(|found| found.map(|dataset| dataset.dataset_id.as_u128()))
    }

    #[test]
    fn a_flocker_id_comes_before_a_name_and_what_is_deleted_is_skipped() {
        let nameless = dataset(1, &[], false);
        let other = dataset(2, &[("FLOCKER_ID", "web2"), ("name", "we")], false);
        let deleted = dataset(3, &[("FLOCKER_ID", "web"), ("name", "web")], true);
        let named = dataset(4, &[("name", "web")], false);
        let of_a_task = dataset(5, &[("FLOCKER_ID", "web")], false);
        let mut datasets = vec![nameless, other, deleted];
        assert_eq!(found(datasets.clone()).unwrap(), None);
        datasets.push(named);
        assert_eq!(found(datasets.clone()).unwrap(), Some(4));
        datasets.push(of_a_task);
        assert_eq!(found(datasets).unwrap(), Some(5));
    }

    #[test]
    fn several_datasets_of_one_name_are_listed_and_none_is_chosen() {
        let twins = |key: &str| {
            vec![
                dataset(2, &[(key, "web")], false),
                dataset(1, &[(key, "web")], false),
            ]
        };
        for key in ["FLOCKER_ID", "name"] {
            let error = found(twins(key)).unwrap_err();
            assert_eq!(error.situation(), Situation::AmbiguousName);
            let ids = "00000000-0000-0000-0000-000000000001, 00000000-0000-0000-0000-000000000002";
            assert!(error.chain().contains(ids), "{}", error.chain());
        }
    }
}
