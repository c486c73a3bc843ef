//! The parameters of `CreateVolume`.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result, Situation};
use crate::volume::did_you_mean;

/// The prefix of the keys in which Kubernetes' provisioner describes the claim.
const PROVISIONER_PREFIX: &str = "csi.storage.k8s.io/";
/// The prefix of the keys that are stored without change.
const METADATA_PREFIX: &str = "metadata.";

/// The requested properties of a volume, beyond its name and size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The storage profile, such as `gold`.
    pub profile: Option<String>,
    /// The pairs that are stored in the dataset's metadata beside the plugin's own keys.
    pub metadata: BTreeMap<String, String>,
}

impl Parameters {
    /// Checks and sorts the parameters of a request.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] naming the first unknown key.
    pub fn parse(parameters: &HashMap<String, String>) -> Result<Self> {
        let mut parsed = Self::default();
        let sorted: BTreeMap<_, _> = parameters.iter().collect();
        for (key, value) in sorted {
            if key == "profile" {
                parsed.profile = Some(value.clone()).filter(|profile| !profile.is_empty());
            } else if let Some(rest) = key.strip_prefix(METADATA_PREFIX).filter(|rest| !rest.is_empty()) {
                parsed.metadata.insert(rest.to_owned(), value.clone());
            } else if key.starts_with(PROVISIONER_PREFIX) {
                parsed.metadata.insert(key.clone(), value.clone());
            } else {
                let text = format!(
                    "parameters: unknown key {key:?}{}; supported are \"profile\", \"metadata.<key>\" and the \
                     provisioner's \"{PROVISIONER_PREFIX}…\"",
                    did_you_mean(key, ["profile", METADATA_PREFIX])
                );
                return Err(Error::new(Situation::InvalidArgument, text));
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Parameters> {
        Parameters::parse(
            &pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn profile_metadata_and_claim_are_accepted() {
        let parameters = parse(&[
            ("profile", "gold"),
            ("metadata.team", "db"),
            ("csi.storage.k8s.io/pvc/name", "data"),
        ])
        .unwrap();
        assert_eq!(parameters.profile.as_deref(), Some("gold"));
        let keys: Vec<_> = parameters.metadata.keys().collect();
        assert_eq!(keys, ["csi.storage.k8s.io/pvc/name", "team"]);
    }

    #[test]
    fn a_mistyped_key_is_refused_with_a_suggestion() {
        let error = parse(&[("profil", "gold")]).unwrap_err();
        assert_eq!(error.situation(), Situation::InvalidArgument);
        assert!(
            error.chain().contains("did you mean \"profile\"?"),
            "{}",
            error.chain()
        );
        assert!(parse(&[("metadata.", "x")]).is_err());
    }
}
