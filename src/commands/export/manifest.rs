//! The objects for Kubernetes.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::args::Format;
use super::volume::{ClaimName, Volume};

/// The annotation by which Kubernetes leaves the deletion to the provisioner. Without it no component is responsible, but
/// the provisioner still deletes every released volume of its driver with the policy Delete, so only Retain keeps one.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// An object of Kubernetes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Spec<'a> {
    Volume(Box<VolumeSpec<'a>>),
    Claim(ClaimSpec<'a>),
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VolumeSpec<'a> {
    access_modes: &'a [String],
    capacity: Storage<'a>,
    /// Without the uid of a claim: Kubernetes does not bind a new claim to a volume that has the uid of a deleted claim of
    /// that name, so the volume would be lost to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim_ref: Option<ClaimRef<'a>>,
    csi: Csi<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    mount_options: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    node_affinity: Option<&'a Value>,
    persistent_volume_reclaim_policy: &'static str,
    storage_class_name: &'a str,
    volume_mode: &'static str,
}

/// The source. It has no file system, like volumes of the provisioner: the plugin uses the one that Flocker made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Csi<'a> {
    driver: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    volume_handle: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimRef<'a> {
    api_version: &'static str,
    kind: &'static str,
    name: &'a str,
    namespace: &'a str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSpec<'a> {
    access_modes: &'a [String],
    resources: Resources<'a>,
    /// Always set: a claim without one gets the default class, and then is not bound to a volume without a class.
    storage_class_name: &'a str,
    volume_mode: &'static str,
    volume_name: &'a str,
}

#[derive(Debug, Serialize)]
struct Resources<'a> {
    requests: Storage<'a>,
}

#[derive(Debug, Serialize)]
struct Storage<'a> {
    storage: &'a str,
}

/// A list of objects, as `kubectl` accepts it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [Manifest<'a>],
}

/// Makes the `PersistentVolume` of a volume of `driver`.
pub(super) fn volume<'a>(volume: &'a Volume, driver: &'a str, delete_with_claim: bool) -> Manifest<'a> {
    let mut annotations = borrowed(&volume.annotations);
    if delete_with_claim {
        annotations.insert(PROVISIONED_BY, driver);
    }
    Manifest {
        api_version: "v1",
        kind: "PersistentVolume",
        metadata: Metadata {
            name: &volume.name,
            namespace: None,
            labels: borrowed(&volume.labels),
            annotations,
        },
        spec: Spec::Volume(Box::new(VolumeSpec {
            access_modes: &volume.access_modes,
            capacity: Storage {
                storage: &volume.capacity,
            },
            claim_ref: volume.claim.as_ref().map(|claim| ClaimRef {
                api_version: "v1",
                kind: "PersistentVolumeClaim",
                name: &claim.name,
                namespace: &claim.namespace,
            }),
            csi: Csi {
                driver,
                read_only: volume.read_only,
                volume_handle: volume.dataset.to_string(),
            },
            mount_options: &volume.mount_options,
            node_affinity: volume.node_affinity.as_ref(),
            persistent_volume_reclaim_policy: if delete_with_claim { "Delete" } else { "Retain" },
            storage_class_name: &volume.storage_class,
            volume_mode: "Filesystem",
        })),
    }
}

/// Makes the claim that goes with a volume.
pub(super) fn claim<'a>(volume: &'a Volume, claim: &'a ClaimName) -> Manifest<'a> {
    Manifest {
        api_version: "v1",
        kind: "PersistentVolumeClaim",
        metadata: Metadata {
            name: &claim.name,
            namespace: Some(&claim.namespace),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        },
        spec: Spec::Claim(ClaimSpec {
            access_modes: &volume.access_modes,
            resources: Resources {
                requests: Storage {
                    storage: &volume.capacity,
                },
            },
            storage_class_name: &volume.storage_class,
            volume_mode: "Filesystem",
            volume_name: &volume.name,
        }),
    }
}

/// Writes objects in a format that `kubectl` reads.
///
/// # Errors
/// They cannot be serialised; no object is known to cause this.
pub(super) fn write(
    manifests: &[Manifest<'_>],
    format: Format,
) -> Result<String, Box<dyn std::error::Error>> {
    match format {
        Format::Json => {
            let list = List {
                api_version: "v1",
                kind: "List",
                items: manifests,
            };
            Ok(serde_json::to_string_pretty(&list)? + "\n")
        }
        Format::Yaml => {
            let mut text = String::new();
            for manifest in manifests {
                if !text.is_empty() {
                    text.push_str("---\n");
                }
                let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
                text.push_str(&serde_saphyr::to_string_with_options(manifest, options)?);
            }
            Ok(text)
        }
    }
}

fn borrowed(map: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}
