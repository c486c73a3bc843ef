//! What a volume id refers to: a dataset by its id, or a dataset by its name.
//!
//! Where only the node service is called (Mesos' `volume/csi`, Marathon), people write volume ids themselves. There a
//! name may stand for a dataset, and the volume's context may describe the dataset to create if none has that name.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::id::dataset_of;
use super::{MINIMUM_SIZE, parse_size, size_text};
use crate::error::{Error, Result, Situation};
use crate::volume::did_you_mean;

/// Whether a dataset is created if none has the name.
const CREATE: &str = "flocker.create";
/// The size of that dataset.
const SIZE: &str = "flocker.size";
/// The storage profile of that dataset.
const PROFILE: &str = "flocker.profile";
const KEYS: [&str; 3] = [CREATE, SIZE, PROFILE];

/// What a volume id refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeReference {
    /// The dataset with that id.
    Dataset(Uuid),
    /// The live dataset that has the volume id as its name.
    Name {
        /// The dataset to create if no dataset has the name; `None`: do not create one.
        first_use: Option<FirstUse>,
    },
}

/// The dataset that is created when a name is used for the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstUse {
    /// Its size in bytes; the default size unless given.
    pub size: Option<u64>,
    /// Its storage profile.
    pub profile: Option<String>,
}

impl VolumeReference {
    /// Parses a volume id together with the volume's context.
    ///
    /// # Errors
    /// [`Situation::InvalidArgument`] naming the key of the context that has a bad value, or that is unknown but
    /// resembles a key of the plugin. All other keys belong to the orchestrator.
    pub fn parse(volume_id: &str, volume_context: &HashMap<String, String>) -> Result<Self> {
        let first_use = FirstUse::parse(volume_context)?;
        Ok(dataset_of(volume_id).map_or(Self::Name { first_use }, Self::Dataset))
    }
}

impl FirstUse {
    /// Returns the dataset to create, or `None` unless the context asks for one.
    fn parse(volume_context: &HashMap<String, String>) -> Result<Option<Self>> {
        let (mut create, mut first_use) = (false, Self::default());
        let sorted: BTreeMap<_, _> = volume_context.iter().collect();
        for (key, value) in sorted {
            match key.as_str() {
                CREATE => {
                    create = value.parse().map_err(|_| bad(key, "expected true or false"))?;
                }
                SIZE => first_use.size = Some(size(value).map_err(|problem| bad(key, problem))?),
                PROFILE if value.is_empty() => {
                    return Err(bad(key, "expected the name of a profile"));
                }
                PROFILE => first_use.profile = Some(value.clone()),
                _ if is_meant_for_us(key) => {
                    let text = format!(
                        "volume_context: unknown key {key:?}{}; supported are {}, and the name of the dataset is the \
                         volume id",
                        did_you_mean(key, KEYS),
                        KEYS.map(|key| format!("{key:?}")).join(", ")
                    );
                    return Err(Error::new(Situation::InvalidArgument, text));
                }
                _ => {}
            }
        }
        Ok(create.then_some(first_use))
    }
}

/// Parses the size of a volume.
fn size(text: &str) -> Result<u64, String> {
    let size = parse_size(text).map_err(|error| error.to_string())?;
    if size >= MINIMUM_SIZE {
        return Ok(size);
    }
    let meant = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!(" (did you mean \"{text}GiB\"? A number without a unit is in bytes)")
    } else {
        String::new()
    };
    Err(format!(
        "expected at least {}, the smallest dataset of Flocker{meant}",
        size_text(MINIMUM_SIZE)
    ))
}

/// Returns whether an unknown key was probably meant for the plugin. A key with a prefix before a slash was not.
fn is_meant_for_us(key: &str) -> bool {
    !key.contains('/') && (key.to_lowercase().starts_with("flocker") || !did_you_mean(key, KEYS).is_empty())
}

/// Makes the error of a bad value, which is not repeated: a context may hold secrets, and errors are logged.
fn bad(key: &str, problem: impl std::fmt::Display) -> Error {
    let text = format!("volume_context: {key}: {problem}");
    Error::new(Situation::InvalidArgument, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(volume_id: &str, pairs: &[(&str, &str)]) -> Result<VolumeReference> {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        VolumeReference::parse(volume_id, &pairs.collect())
    }

    #[test]
    fn a_dataset_id_is_recognised_and_any_other_text_is_a_name() {
        let id = "0fbbd6e1-f558-4ea3-b2fe-b0268d12322a";
        let dataset = VolumeReference::Dataset(id.parse().unwrap());
        assert_eq!(parse(id, &[("flocker.create", "true")]).unwrap(), dataset);
        for name in ["web", "0FBBD6E1-F558-4EA3-B2FE-B0268D12322A", "a/b c"] {
            assert_eq!(
                parse(name, &[]).unwrap(),
                VolumeReference::Name { first_use: None }
            );
        }
    }

    #[test]
    fn a_dataset_is_created_only_if_the_context_asks_for_it() {
        let first_use = |pairs: &[(&str, &str)]| match parse("web", pairs).unwrap() {
            VolumeReference::Name { first_use } => first_use,
            VolumeReference::Dataset(dataset) => panic!("{dataset}"),
        };
        let options = [("flocker.size", "1GiB"), ("flocker.profile", "gold")];
        assert_eq!(first_use(&options), None);
        assert_eq!(first_use(&[options[0], ("flocker.create", "false")]), None);
        let made = first_use(&[options[0], options[1], ("flocker.create", "true")]).unwrap();
        assert_eq!(
            (made.size, made.profile.as_deref()),
            (Some(1 << 30), Some("gold"))
        );
        assert_eq!(
            first_use(&[("flocker.create", "true")]),
            Some(FirstUse::default())
        );
    }

    #[test]
    fn a_bad_value_is_refused_with_its_key_even_if_no_dataset_is_created() {
        for (key, value, part) in [
            ("flocker.create", "yes", "expected true or false"),
            ("flocker.size", "10GB", "expected a binary unit (GiB)"),
            ("flocker.size", "", "expected a size"),
            ("flocker.size", "10", "did you mean \"10GiB\"?"),
            (
                "flocker.size",
                "63MiB",
                "expected at least 64 MiB, the smallest dataset of Flocker",
            ),
            ("flocker.profile", "", "expected the name of a profile"),
        ] {
            let error = parse("web", &[(key, value)]).unwrap_err();
            assert_eq!(error.situation(), Situation::InvalidArgument);
            let text = error.chain();
            assert!(
                text.contains(&format!("{key}: ")) && text.contains(part),
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_that_resembles_one_of_the_plugin_is_refused_and_foreign_keys_are_not() {
        for (key, suggested) in [
            ("flocker.crate", "flocker.create"),
            ("floker.create", "flocker.create"),
            ("Flocker.Size", "flocker.size"),
            ("flocker_size", "flocker.size"),
            ("flocker.profil", "flocker.profile"),
        ] {
            let text = parse("web", &[(key, "x")]).unwrap_err().chain();
            assert!(text.contains(&format!("did you mean \"{suggested}\"?")), "{text}");
        }
        let text = parse("web", &[("FLOCKER_ID", "web")]).unwrap_err().chain();
        assert!(
            text.contains("the name of the dataset is the volume id"),
            "{text}"
        );
        for key in [
            "storage.kubernetes.io/csiProvisionerIdentity",
            "flocker.example.com/tier",
            "team",
        ] {
            parse("web", &[(key, "x")]).unwrap();
        }
    }
}
