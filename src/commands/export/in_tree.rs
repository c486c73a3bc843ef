//! `PersistentVolumes` of Kubernetes' in-tree flocker plugin.

use std::collections::{BTreeMap, BTreeSet};

use flocker_client::Dataset;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use uuid::Uuid;

use super::check;
use super::datasets::Datasets;
use super::objects::Object;
use super::report::Report;
use super::volume::{ClaimName, ONE_NODE, Volume, join, quantity};
use crate::volume::NAME_KEY;
use crate::volume::{FlagError, MountFlags};

/// The annotation that holds the storage class in old clusters.
const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The annotation that holds the mount options in old clusters.
const OLD_MOUNT_OPTIONS: &str = "volume.beta.kubernetes.io/mount-options";
/// Annotations in which Kubernetes and its tools record what they did with the old volume.
const BOOKKEEPING: [&str; 6] = [
    "kubectl.kubernetes.io/",
    "kubernetes.io/createdby",
    "pv.kubernetes.io/",
    "volume.alpha.kubernetes.io/",
    "volume.beta.kubernetes.io/",
    "volume.kubernetes.io/",
];
/// The prefix of finalizers that Kubernetes itself sets on volumes where they are needed.
const OWN_FINALIZERS: &str = "kubernetes.io/pv-";

#[derive(Deserialize)]
struct PersistentVolume {
    metadata: Metadata,
    spec: Spec,
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    flocker: Option<Source>,
    capacity: Option<Capacity>,
    access_modes: Option<Vec<String>>,
    claim_ref: Option<ClaimRef>,
    mount_options: Option<Vec<String>>,
    node_affinity: Option<Value>,
    persistent_volume_reclaim_policy: Option<String>,
    storage_class_name: Option<String>,
    volume_mode: Option<String>,
    /// All other fields, above all those of other kinds of storage.
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    #[serde(rename = "datasetName", default)]
    name: String,
    #[serde(rename = "datasetUUID", default)]
    uuid: String,
    #[serde(rename = "readOnly", default)]
    read_only: bool,
}

#[derive(Deserialize)]
struct Capacity {
    #[serde(default, deserialize_with = "text_or_number")]
    storage: Option<String>,
}

#[derive(Deserialize)]
struct ClaimRef {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    phase: Option<String>,
}

/// Reads a quantity, which may be a plain number of bytes.
fn text_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        other => {
            return Err(D::Error::custom(format!(
                "expected a size such as 10Gi, found {other}"
            )));
        }
    };
    check::size(&text).map(Some).map_err(D::Error::custom)
}

/// Translates an object, which must be a `PersistentVolume` of the in-tree plugin, to a volume.
pub(super) fn volume(object: &Object, datasets: &Datasets<'_>, report: &mut Report) -> Option<Volume> {
    let volume = translate(object, datasets, report);
    report.take(volume.map_err(|problem| format!("{object}: {problem}")))
}

fn translate(object: &Object, datasets: &Datasets<'_>, report: &mut Report) -> Result<Volume, String> {
    if object.kind != "PersistentVolume" {
        return Err(
            "it is not a PersistentVolume; remove it from the input, export accepts nothing else".to_owned(),
        );
    }
    let PersistentVolume {
        metadata,
        spec,
        status,
    } = object.read()?;
    check::name(&object.name)?;
    if let Some(claim) = &spec.claim_ref {
        check::name(&claim.name)?;
        check::namespace(&claim.namespace).map_err(|error| format!("spec.claimRef.namespace: {error}"))?;
    }
    // A deleted claim may have been recreated and be bound to another volume. A volume written by hand has no phase.
    let bound = status
        .and_then(|status| status.phase)
        .is_none_or(|phase| phase == "Bound");
    remark_on_losses(object, &metadata, &spec, report);
    let source = source(spec.flocker, &spec.rest)?;
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(
            "it has volumeMode Block: Flocker mounts a file system, so volumeMode must be Filesystem"
                .to_owned(),
        );
    }
    let dataset = dataset_of(&source, datasets)?;
    report.remark_on(object, datasets.unused(dataset)?);
    let capacity = spec
        .capacity
        .and_then(|capacity| capacity.storage)
        .unwrap_or_else(|| {
            let (size, unknown) = datasets.size(dataset);
            report.remark_on(object, unknown);
            quantity(size)
        });
    let mut annotations = metadata.annotations.unwrap_or_default();
    // The annotations take precedence over the fields, as in Kubernetes.
    let class = annotations.remove(OLD_CLASS).or(spec.storage_class_name);
    let mount_options = annotations.remove(OLD_MOUNT_OPTIONS).map(|options| vec![options]);
    let mut mount_options = mount_options.or(spec.mount_options).unwrap_or_default();
    if source.read_only {
        // This field is for drivers that attach read-only; the kubelet ignores it.
        mount_options.insert(0, "ro".to_owned());
    }
    annotations.retain(|key, _| !BOOKKEEPING.iter().any(|start| key.starts_with(start)));
    Ok(Volume {
        name: object.name.clone(),
        dataset: dataset.dataset_id,
        capacity,
        access_modes: access_modes(object, spec.access_modes.unwrap_or_default(), report),
        read_only: source.read_only,
        mount_options: mount_flags(object, &mount_options, report),
        storage_class: class.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        annotations,
        node_affinity: spec.node_affinity,
        claim: spec.claim_ref.map(|claim| ClaimName {
            namespace: claim.namespace,
            name: claim.name,
        }),
        bound,
    })
}

/// Adds remarks on what the new volume does not keep, and on what may happen to the old one.
fn remark_on_losses(object: &Object, metadata: &Metadata, spec: &Spec, report: &mut Report) {
    let finalizers = metadata.finalizers.iter().flatten();
    let finalizers = finalizers
        .filter(|finalizer| !finalizer.starts_with(OWN_FINALIZERS))
        .map(|finalizer| format!("finalizer {finalizer}"));
    let owners = metadata
        .owner_references
        .as_ref()
        .filter(|owners| !owners.is_empty());
    let owners = owners.map(|_| "metadata.ownerReferences".to_owned());
    let fields = spec.rest.keys().map(|key| format!("spec.{key}"));
    for lost in finalizers.chain(owners).chain(fields) {
        report.remark(format!("{object}: {lost} is not kept"));
    }
    // A volume that is written by hand without a policy is retained.
    let policy = spec.persistent_volume_reclaim_policy.as_ref();
    let danger = policy.filter(|policy| *policy != "Retain").map(|policy| {
        format!(
            "it is not retained now (its reclaim policy is {policy:?}); set it to Retain before you delete its claim, or its \
                 data may be deleted with it"
        )
    });
    report.remark_on(object, danger);
}

/// Returns the source of a volume.
fn source(source: Option<Source>, rest: &BTreeMap<String, Value>) -> Result<Source, String> {
    let Some(source) = source else {
        let has = match join(rest.keys().map(|key| format!("spec.{key}"))) {
            fields if fields.is_empty() => String::new(),
            fields => format!(" (it has {fields})"),
        };
        return Err(format!(
            "it has no flocker source{has}; remove it from the input, export accepts only volumes of Kubernetes' flocker plugin"
        ));
    };
    match (source.name.is_empty(), source.uuid.is_empty()) {
        (true, true) => Err("spec.flocker has neither datasetUUID nor datasetName".to_owned()),
        (false, false) => Err("spec.flocker has both datasetUUID and datasetName; remove one".to_owned()),
        _ => Ok(source),
    }
}

/// Finds the dataset by the in-tree plugin's rule: by its id, or by the name in its metadata.
fn dataset_of<'a>(source: &Source, datasets: &Datasets<'a>) -> Result<&'a Dataset, String> {
    if source.uuid.is_empty() {
        return datasets.by_name(&[NAME_KEY], &source.name);
    }
    let id = Uuid::try_parse(&source.uuid);
    datasets.by_id(id.map_err(|_| format!("datasetUUID {:?} is no UUID", source.uuid))?)
}

fn access_modes(object: &Object, modes: Vec<String>, report: &mut Report) -> Vec<String> {
    let (mut kept, lost): (Vec<_>, Vec<_>) = modes
        .into_iter()
        .partition(|mode| mode == ONE_NODE || mode == "ReadWriteOncePod");
    if kept.is_empty() {
        kept.push(ONE_NODE.to_owned());
    }
    if !lost.is_empty() {
        report.remark(format!(
            "{object}: access mode {} is not kept, because a dataset is on one node at a time; it has {}, and the claim \
                 must have the same",
            join(lost),
            join(&kept)
        ));
    }
    kept
}

/// Returns the mount options that the plugin accepts.
fn mount_flags(object: &Object, options: &[String], report: &mut Report) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    let words = options.iter().flat_map(|option| option.split(',')).map(str::trim);
    let mut seen = BTreeSet::new();
    let numbered = words.filter(|word| !word.is_empty()).zip(1..);
    for (word, number) in numbered.filter(|(word, _)| seen.insert(*word)) {
        let with = kept.iter().map(String::as_str).chain([word]).collect::<Vec<_>>();
        match MountFlags::parse(&with, false) {
            Ok(_) => kept.push(word.to_owned()),
            Err(FlagError::Unknown { name, similar, .. }) => {
                let error = FlagError::Unknown {
                    name,
                    number,
                    similar,
                };
                report.remark(format!("{object}: a mount option is not kept: {error}"));
            }
            Err(error) => report.remark(format!("{object}: a mount option is not kept: {error}")),
        }
    }
    kept
}
