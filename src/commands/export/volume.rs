//! A volume on its way to Kubernetes, wherever it comes from.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::report::Report;

/// The access mode of a dataset, which is on one node at a time.
pub(super) const ONE_NODE: &str = "ReadWriteOnce";

/// What is known of a volume, whatever it was before.
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
    /// Whose volume it is.
    pub(super) claim: Option<ClaimName>,
    /// Whether that claim is known to be bound to this volume, or nothing is known to speak against it.
    pub(super) bound: bool,
}

/// Which claim is meant.
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

/// Refuses volumes that would be in each other's way.
pub(super) fn refuse_twins(volumes: &[Volume], report: &mut Report) {
    for (twin, datasets) in groups(volumes, |volume| Some(volume.name.clone())) {
        let ids = join(datasets.iter().map(|volume| volume.dataset));
        report.refuse(format!(
            "{} volumes would be called {twin}, those of datasets {ids}: export them one at a time, and rename them",
            datasets.len()
        ));
    }
    for (twin, twins) in groups(volumes, |volume| Some(volume.dataset.to_string())) {
        let names = join(twins.iter().map(|volume| &volume.name));
        report.refuse(format!(
            "PersistentVolumes {names} are the same dataset, {twin}: leave out all but one, for no pod would know of the \
             others' writers"
        ));
    }
    for (twin, twins) in groups(volumes, |volume| volume.claim.as_ref().map(ClaimName::to_string)) {
        // Told above.
        if twins.iter().all(|volume| volume.name == twins[0].name) {
            continue;
        }
        let names = join(twins.iter().map(|volume| &volume.name));
        report.refuse(format!(
            "PersistentVolumes {names} belong to the same claim, {twin}: leave out those that are no longer bound to it"
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

/// Returns words for a sentence.
pub(super) fn join(words: impl IntoIterator<Item = impl ToString>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| word.to_string()).collect();
    words.join(", ")
}

/// Returns a number of bytes as Kubernetes writes it, exactly.
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
        Volume {
            name: name.to_owned(),
            dataset: Uuid::from_u128(dataset),
            capacity: "1Gi".to_owned(),
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
    fn volumes_of_one_name_dataset_or_claim_are_refused_with_the_names_of_all() {
        let one = claimed("one", 1, "apps", "data");
        assert_eq!(
            refused(&[one.clone(), volume("two", 2), claimed("three", 3, "dev", "data")]),
            [""; 0]
        );
        for (other, parts) in [
            (
                volume("one", 2),
                ["called one", "-000000000001, 00000000-", "one at a time"],
            ),
            (volume("two", 1), ["one, two", "-000000000001", "all but one"]),
            (
                claimed("two", 2, "apps", "data"),
                ["one, two", "apps/data", "no longer bound"],
            ),
        ] {
            let told = refused(&[one.clone(), other]);
            assert_eq!(told.len(), 1, "{told:?}");
            for part in parts {
                assert!(told[0].contains(part), "{told:?}");
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
