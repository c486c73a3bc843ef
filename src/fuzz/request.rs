//! The strings of a CSI request from any client.

use std::collections::HashMap;

use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::operation::deadline::Deadline;
use crate::volume::MountFlags;
use crate::volume::{Namespace, Parameters, VolumeName, VolumeReference, dataset_of, metadata};
use host_fs::mount::TargetPath;

/// Parses any text as each field of a request that has a syntax: the whole text as a path, an id, a name and a
/// deadline; its lines as mount flags, as parameters and as a volume's context.
///
/// # Panics
/// If an accepted value changes when it is printed and parsed again, or breaks a promise of the field.
pub fn request(bytes: &[u8]) {
    if let Ok(value) = AsciiMetadataValue::try_from(bytes) {
        let mut headers = MetadataMap::new();
        headers.insert("grpc-timeout", value);
        assert!(Deadline::from_metadata(&headers).budget().as_secs() <= 50);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(target) = TargetPath::parse(text) {
        let path = target.as_path();
        assert!(path.is_absolute() && path.parent().is_some());
        assert!(path.components().all(|part| part.as_os_str() != ".."));
        let again = TargetPath::parse(path.to_str().expect("it came as text"));
        assert_eq!(again.expect("a clean path is one"), target);
    }
    if let Some(dataset) = dataset_of(text) {
        assert_eq!(dataset.to_string(), text);
    }
    let lines: Vec<&str> = text.lines().collect();
    for readonly in [false, true] {
        if let Ok(flags) = MountFlags::parse(&lines, readonly) {
            assert!(flags.read_only() || !readonly);
            assert_eq!(MountFlags::parse(&[flags.to_string()], false), Ok(flags));
        }
    }
    let pairs: HashMap<_, _> = lines
        .iter()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    match VolumeReference::parse(text, &pairs) {
        Ok(VolumeReference::Dataset(dataset)) => assert_eq!(Some(dataset), dataset_of(text)),
        Ok(VolumeReference::Name { first_use }) => {
            assert_eq!(dataset_of(text), None);
            let asked = pairs.get("flocker.create").is_some_and(|create| create == "true");
            assert_eq!(first_use.is_some(), asked);
        }
        Err(refused) => assert!(refused.chain().contains("volume_context")),
    }
    let name = VolumeName::parse(text);
    if let Ok(name) = &name {
        assert_eq!(name.as_str(), text);
        assert_eq!(Namespace::new(text).dataset_id(name, 0).get_version_num(), 4);
    }
    let name = name
        .or_else(|_| VolumeName::parse("pvc"))
        .expect("this is a name");
    if let Ok(parameters) = Parameters::parse(&pairs)
        && let Ok(stored) = metadata("driver", &name, 0, &parameters)
    {
        assert!(stored.len() <= 16);
        let fits = |text: &String| text.chars().count() <= 256;
        assert!(
            stored
                .iter()
                .all(|(key, value)| !key.is_empty() && fits(key) && fits(value))
        );
    }
}
