//! The datasets that have a name.

use flocker_client::Dataset;

use super::Snapshot;
use crate::error::{Error, Result, Situation};
use crate::volume::{FLOCKER_ID_KEY, NAME_KEY, did_you_mean};

/// Finds the live dataset that has a name: first by mesos-module-flocker's key, because a dataset that has it was
/// created for tasks, then by the key of Flocker's Docker plugin, Kubernetes' old plugin and CSI.
///
/// # Errors
/// [`Situation::AmbiguousName`] listing the datasets when there are several.
pub(crate) fn dataset_named<'a>(snapshot: &'a Snapshot, name: &str) -> Result<Option<&'a Dataset>> {
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

/// Returns ` (did you mean "…"?)` when a live dataset has a name that resembles this one, else nothing.
pub(crate) fn similar_name(snapshot: &Snapshot, name: &str) -> String {
    let live = snapshot.datasets().filter(|dataset| !dataset.deleted);
    let names = live.flat_map(|dataset| [FLOCKER_ID_KEY, NAME_KEY].map(|key| dataset.metadata.get(key)));
    did_you_mean(name, names.flatten().map(String::as_str))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

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
        dataset_named(&snapshot, "web").map(|found| found.map(|dataset| dataset.dataset_id.as_u128()))
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
    fn a_mistyped_name_is_answered_with_the_nearest_that_exists() {
        let datasets = vec![
            dataset(1, &[("name", "orders-database")], false),
            dataset(2, &[("FLOCKER_ID", "orders-archive")], false),
            dataset(3, &[("name", "orders-databasee")], true),
            dataset(4, &[], false),
        ];
        let snapshot = Snapshot::of(datasets, vec![], &[], vec![]);
        let similar = similar_name(&snapshot, "orders-datbase");
        assert_eq!(similar, " (did you mean \"orders-database\"?)");
        assert_eq!(similar_name(&snapshot, "web"), "");
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
