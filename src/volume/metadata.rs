//! The metadata that Flocker stores about a volume of this plugin.

use std::collections::BTreeMap;

use super::id::Generation;
use super::name::VolumeName;
use super::parameters::Parameters;
use crate::error::{Error, Result, Situation};

/// The key of the volume's name, which Flocker's Docker plugin and Kubernetes' in-tree plugin also use.
pub(crate) const NAME_KEY: &str = "name";
/// The key under which mesos-module-flocker keeps the name that a task gives to its dataset.
pub(crate) const FLOCKER_ID_KEY: &str = "FLOCKER_ID";
/// The key of the name of the driver that created the volume.
pub(crate) const DRIVER_KEY: &str = "csi.driver";
/// The key of the volume's generation.
pub(crate) const GENERATION_KEY: &str = "csi.generation";
/// The key in which Flocker's backends look for a storage profile.
pub(crate) const PROFILE_KEY: &str = "clusterhq:flocker:profile";

/// How many keys a dataset may have.
const MOST_KEYS: usize = 16;
/// How many characters a key or a value may have.
const LONGEST: usize = 256;

/// Returns the metadata of a new volume.
///
/// # Errors
/// [`Situation::InvalidArgument`] naming the key that is too long, is reserved by the plugin, or is one too many.
pub fn metadata(
    driver: &str,
    name: &VolumeName,
    generation: Generation,
    parameters: &Parameters,
) -> Result<BTreeMap<String, String>> {
    let mut metadata = BTreeMap::from([
        (NAME_KEY.to_owned(), name.as_str().to_owned()),
        (DRIVER_KEY.to_owned(), driver.to_owned()),
        (GENERATION_KEY.to_owned(), generation.to_string()),
    ]);
    if let Some(profile) = &parameters.profile {
        metadata.insert(PROFILE_KEY.to_owned(), profile.clone());
    }
    for (key, value) in &parameters.metadata {
        if metadata.contains_key(key) || key == PROFILE_KEY {
            return refuse(key, "is the plugin's own key");
        }
        if key.chars().count() > LONGEST || key.contains('\n') {
            return refuse(key, "is not a key of 1 to 256 characters without line breaks");
        }
        if metadata.len() == MOST_KEYS {
            return refuse(
                key,
                "is one key too many: Flocker stores 16, of which the plugin needs up to 4",
            );
        }
        metadata.insert(key.clone(), value.clone());
    }
    match metadata.iter().find(|(_, value)| value.chars().count() > LONGEST) {
        Some((key, _)) => refuse(
            key,
            "has a value of more than 256 characters, the most Flocker stores",
        ),
        None => Ok(metadata),
    }
}

/// Returns the storage profile with which a dataset was created.
pub(crate) fn profile_of(metadata: &BTreeMap<String, String>) -> Option<&str> {
    metadata.get(PROFILE_KEY).map(String::as_str)
}

fn refuse<T>(key: &str, problem: &str) -> Result<T> {
    Err(Error::new(
        Situation::InvalidArgument,
        format!("parameters: metadata key {key:?} {problem}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>> {
        let parameters = Parameters {
            profile: Some("gold".to_owned()),
            metadata: pairs.into_iter().collect(),
        };
        metadata(
            "flocker.csi.clusterhq.com",
            &VolumeName::parse("pvc-1").unwrap(),
            2,
            &parameters,
        )
    }

    #[test]
    fn a_volume_has_the_metadata_that_this_plugin_and_older_clients_read() {
        let metadata = with([("team".to_owned(), "db".to_owned())]).unwrap();
        assert_eq!(metadata[NAME_KEY], "pvc-1");
        assert_eq!(metadata[DRIVER_KEY], "flocker.csi.clusterhq.com");
        assert_eq!(metadata[GENERATION_KEY], "2");
        assert_eq!(profile_of(&metadata), Some("gold"));
        assert_eq!(metadata["team"], "db");
    }

    #[test]
    fn metadata_that_flocker_would_refuse_is_refused_naming_the_key() {
        let many = (0..13).map(|number| (format!("key{number:02}"), String::new()));
        let cases = [
            (with(many), "key12"),
            (with([("long".to_owned(), "x".repeat(257))]), "\"long\""),
            (with([("k".repeat(257), String::new())]), "256 characters"),
            (with([("csi.driver".to_owned(), "x".to_owned())]), "own key"),
        ];
        for (result, part) in cases {
            let error = result.unwrap_err();
            assert_eq!(error.situation(), Situation::InvalidArgument);
            assert!(error.chain().contains(part), "{}", error.chain());
        }
        assert!(
            with([("emoji".to_owned(), "😀".repeat(256))]).is_ok(),
            "characters count, not bytes"
        );
    }
}
