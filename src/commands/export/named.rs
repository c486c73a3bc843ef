//! Datasets that become Kubernetes volumes, of any client.

use std::collections::BTreeMap;

use flocker_client::Dataset;
use uuid::Uuid;

use super::datasets::Datasets;
use super::report::Report;
use super::volume::{Volume, quantity};
use crate::volume::{DRIVER_KEY, FLOCKER_ID_KEY, NAME_KEY};

/// The metadata keys that may hold a dataset's name, in the plugin's order: the key of mesos-module-flocker, then that of
/// the Docker plugin, Kubernetes' in-tree plugin and CSI.
const KEYS: [&str; 2] = [FLOCKER_ID_KEY, NAME_KEY];
/// The longest name of an object of Kubernetes that is a label of DNS.
const LONGEST: usize = 63;

/// Returns the volumes of datasets: those with the given ids or names, or else all that have a name and that no CSI
/// driver created.
pub(super) fn volumes(items: &[String], datasets: &Datasets<'_>, report: &mut Report) -> Vec<Volume> {
    let chosen: BTreeMap<Uuid, &Dataset> = if items.is_empty() {
        all(datasets, report)
    } else {
        let found = items.iter().filter_map(|item| report.take(find(item, datasets)));
        found.map(|dataset| (dataset.dataset_id, dataset)).collect()
    };
    chosen
        .into_values()
        .filter_map(|dataset| volume(dataset, datasets, report))
        .collect()
}

fn all<'a>(datasets: &Datasets<'a>, report: &mut Report) -> BTreeMap<Uuid, &'a Dataset> {
    let live = datasets.snapshot.datasets().filter(|dataset| !dataset.deleted);
    let (named, nameless): (Vec<_>, Vec<_>) = live.partition(|dataset| name_in(dataset).is_some());
    for dataset in nameless {
        let id = dataset.dataset_id;
        report.remark(format!(
            "dataset {id} has no name and is left out: give its id to export it"
        ));
    }
    // They already are Kubernetes volumes: applying an object of the same name takes the volume away from its claim.
    let (of_drivers, of_other_clients): (Vec<_>, Vec<_>) = named
        .into_iter()
        .partition(|dataset| dataset.metadata.contains_key(DRIVER_KEY));
    for dataset in of_drivers {
        let id = dataset.dataset_id;
        report.remark(format!(
            "dataset {id} was made by a CSI driver, so it is a volume already, and is left out: give its id to export it"
        ));
    }
    if of_other_clients.is_empty() {
        report.refuse("Flocker has no dataset with a name that was not made by a CSI driver");
    }
    of_other_clients
        .into_iter()
        .map(|dataset| (dataset.dataset_id, dataset))
        .collect()
}

fn find<'a>(item: &str, datasets: &Datasets<'a>) -> Result<&'a Dataset, String> {
    match Uuid::try_parse(item) {
        Ok(id) => datasets.by_id(id),
        Err(_) => datasets.by_name(&KEYS, item),
    }
}

fn volume(dataset: &Dataset, datasets: &Datasets<'_>, report: &mut Report) -> Option<Volume> {
    let id = dataset.dataset_id;
    let in_use = report.take(datasets.unused(dataset))?;
    let (size, unknown) = datasets.size(dataset);
    let name = name_in(dataset).map(label).filter(|label| !label.is_empty());
    let name = name.unwrap_or_else(|| format!("flocker-{id}"));
    let renamed = name_in(dataset).filter(|original| *original != name).map(|original| {
        format!("dataset {id} has the name {original:?}, which no volume can have: the PersistentVolume is {name}")
    });
    let made = dataset.metadata.get(DRIVER_KEY).map(|driver| {
        format!(
            "dataset {id} was made by CSI driver {driver:?}: create this PersistentVolume only if the dataset's own one no \
                 longer exists; applied over that one, it takes the data away from its claim"
        )
    });
    for remark in [in_use, unknown, renamed, made].into_iter().flatten() {
        report.remark(remark);
    }
    Some(Volume::new(name, id, quantity(size)))
}

/// Returns the name of a dataset.
fn name_in(dataset: &Dataset) -> Option<&str> {
    let names = KEYS.iter().filter_map(|key| dataset.metadata.get(*key));
    names.map(String::as_str).find(|name| !name.is_empty())
}

/// Makes a name that Kubernetes objects can have.
fn label(name: &str) -> String {
    let fit = |character: char| match character.to_ascii_lowercase() {
        character if character.is_ascii_alphanumeric() => character,
        _ => '-',
    };
    let fitted: String = name.chars().map(fit).collect();
    let fitted = fitted.trim_start_matches('-');
    fitted[..fitted.len().min(LONGEST)]
        .trim_end_matches('-')
        .to_owned()
}
