//! An exported volume, from either source.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::report::Report;

/// The access mode of a dataset, which is on one node at a time.
pub(super) const ONE_NODE: &str = "ReadWriteOnce";

/// The properties of a volume, from either source.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Volume {
    /// The name of the `PersistentVolume`.
    pub(super) name: String,
    pub(super) dataset: Uuid,
    /// The size as Kubernetes writes it.
    pub(super) capacity: String,
    pub(super) access_modes: Vec<String>,
    pub(super) read_only: bool,
    pub(super) mount_options: Vec<String>,
    pub(super) storage_class: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) node_affinity: Option<Value>,
    /// The claim that the volume is reserved for.
    pub(super) claim: Option<ClaimName>,
    /// Whether the claim is known to be bound to this volume, or at least not known to be bound to another one.
    pub(super) bound: bool,
}

impl Volume {
    /// Returns a volume without options: for one node, reserved for no claim.
    pub(super) fn new(name: String, dataset: Uuid, capacity: String) -> Self {
        Self {
            name,
            dataset,
            capacity,
            access_modes: vec![ONE_NODE.to_owned()],
            read_only: false,
            mount_options: Vec::new(),
            storage_class: String::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            node_affinity: None,
            claim: None,
            bound: true,
        }
    }
}

/// The namespace and name of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClaimName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl std::fmt::Display for ClaimName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Refuses volumes that conflict with each other.
pub(super) fn refuse_twins(volumes: &[Volume], report: &mut Report) {
    for (twin, datasets) in groups(volumes, |volume| Some(volume.name.clone())) {
        let ids = join(datasets.iter().map(|volume| volume.dataset));
        report.refuse(format!(
            "{} volumes would have the name {twin}, those of datasets {ids}: export them one at a time, and rename them",
            datasets.len()
        ));
    }
    for (twin, twins) in groups(volumes, |volume| Some(volume.dataset.to_string())) {
        let names = join(twins.iter().map(|volume| &volume.name));
        report.refuse(format!(
            "PersistentVolumes {names} are the same dataset, {twin}: keep only one, because no pod would know of the \
                 writers of another volume"
        ));
    }
    for (twin, twins) in groups(volumes, |volume| volume.claim.as_ref().map(ClaimName::to_string)) {
        // Already reported above.
        if twins.iter().all(|volume| volume.name == twins[0].name) {
            continue;
        }
        let names = join(twins.iter().map(|volume| &volume.name));
        report.refuse(format!(
            "PersistentVolumes {names} belong to the same claim, {twin}: remove those that are no longer bound to it"
        ));
    }
}

fn groups(volumes: &[Volume], key: impl Fn(&Volume) -> Option<String>) -> BTreeMap<String, Vec<&Volume>> {
    let mut groups: BTreeMap<String, Vec<&Volume>> = BTreeMap::new();
    for volume in volumes {
        if let Some(key) = key(volume) {
            groups.entry(key).or_default().push(volume);
        }
    }
    groups.retain(|_, group| group.len() > 1);
    groups
}

/// Joins words with commas.
pub(super) fn join(words: impl IntoIterator<Item = impl ToString>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| word.to_string()).collect();
    words.join(", ")
}

/// Returns a number of bytes as an exact Kubernetes quantity.
pub(super) fn quantity(bytes: u64) -> String {
    for (shift, unit) in [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in crate::commands::export) fn volume(name: &str, dataset: u128) -> Volume {
        Volume::new(name.to_owned(), Uuid::from_u128(dataset), "1Gi".to_owned())
    }

    fn claimed(name: &str, dataset: u128, namespace: &str, claim: &str) -> Volume {
        let claim = ClaimName {
            namespace: namespace.to_owned(),
            name: claim.to_owned(),
        };
        Volume {
            claim: Some(claim),
            ..volume(name, dataset)
        }
    }

    fn refused(volumes: &[Volume]) -> Vec<String> {
        let mut report = Report::default();
        refuse_twins(volumes, &mut report);
        report
            .finish()
            .err()
            .map_or(Vec::new(), |failure| failure.lines().to_vec())
    }

    #[test]
    fn volumes_that_share_a_name_dataset_or_claim_are_refused_with_all_their_names() {
        let one = claimed("one", 1, "apps", "data");
        assert_eq!(
            refused(&[one.clone(), volume("two", 2), claimed("three", 3, "dev", "data")]),
            [""; 0]
        );
        for (other, parts) in [
            (
                volume("one", 2),
                ["the name one", "-000000000001, 00000000-", "one at a time"],
            ),
            (volume("two", 1), ["one, two", "-000000000001", "keep only one"]),
            (
                claimed("two", 2, "apps", "data"),
                ["one, two", "apps/data", "no longer bound"],
            ),
        ] {
            let problems = refused(&[one.clone(), other]);
            assert_eq!(problems.len(), 1, "{problems:?}");
            for part in parts {
                assert!(problems[0].contains(part), "{problems:?}");
            }
        }
    }

    #[test]
    fn a_size_is_written_in_the_largest_exact_unit() {
        for (bytes, written) in [
            (1 << 40, "1Ti"),
            (75 << 30, "75Gi"),
            (64 << 20, "64Mi"),
            ((1 << 30) + 1024, "1048577Ki"),
            (1000, "1000"),
            (0, "0"),
        ] {
            assert_eq!(quantity(bytes), written);
        }
    }
}
