//! What people call a volume, for the log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing::Span;

use super::metadata::NAME_KEY;
use crate::telemetry::log_names::NamedFields;
use crate::telemetry::record;

/// The keys under which Kubernetes' provisioner describes the claim that a volume was created for.
const CLAIM_NAME_KEY: &str = "csi.storage.k8s.io/pvc/name";
const CLAIM_NAMESPACE_KEY: &str = "csi.storage.k8s.io/pvc/namespace";

/// What people call a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VolumeLabels {
    /// Its name.
    pub(crate) name: Option<String>,
    /// The claim of Kubernetes that it was created for.
    pub(crate) claim: Option<KubernetesClaim>,
}

/// A claim of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KubernetesClaim {
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

impl VolumeLabels {
    /// Returns those in the metadata of a dataset, if there are any.
    pub(crate) fn in_metadata(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let name = metadata.get(NAME_KEY).cloned();
        let claim = KubernetesClaim::in_metadata(metadata);
        (name.is_some() || claim.is_some()).then_some(Self { name, claim })
    }

    /// Returns them as fields of the log.
    pub(crate) fn fields(&self) -> NamedFields {
        let claim = self.claim.as_ref();
        let fields = [
            ("volume.name", self.name.as_ref()),
            (
                "claim.namespace",
                claim.and_then(|claim| claim.namespace.as_ref()),
            ),
            ("claim.name", claim.and_then(|claim| claim.name.as_ref())),
        ];
        let fields = fields.into_iter();
        fields
            .filter_map(|(field, value)| Some((field, value?.clone())))
            .collect()
    }

    /// Records them in a span that has these fields, for the call that is worked for now.
    pub(crate) fn record_in(&self, span: &Span) {
        for (field, value) in self.fields() {
            record(span, field, value);
        }
    }
}

impl KubernetesClaim {
    /// Returns the claim that metadata names, those of a request or of a dataset.
    pub(crate) fn in_metadata(metadata: &BTreeMap<String, String>) -> Option<Self> {
        let namespace = metadata.get(CLAIM_NAMESPACE_KEY).cloned();
        let name = metadata.get(CLAIM_NAME_KEY).cloned();
        (namespace.is_some() || name.is_some()).then_some(Self { namespace, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_called_what_its_metadata_says() {
        let labels = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            VolumeLabels::in_metadata(&pairs.collect())
        };
        assert_eq!(labels(&[("team", "db")]), None);
        let named = labels(&[(NAME_KEY, "pvc-1")]).unwrap();
        assert_eq!((named.name.as_deref(), named.claim), (Some("pvc-1"), None));
        let claimed = labels(&[(CLAIM_NAME_KEY, "data"), (CLAIM_NAMESPACE_KEY, "shop")]).unwrap();
        let claim = claimed.claim.unwrap();
        assert_eq!(
            (claim.namespace.as_deref(), claim.name.as_deref()),
            (Some("shop"), Some("data"))
        );
    }
}
