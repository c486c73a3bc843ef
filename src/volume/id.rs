//! Volume ids, and how one is derived from a name.

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use super::name::VolumeName;

/// How many volumes of the same name were created and deleted before; 0 for the first one.
///
/// Flocker keeps deleted datasets and never reuses an id, so every new volume of an old name needs an id of its own.
pub(crate) type Generation = u32;

/// The name space in which volume names are unique; by default the driver's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

impl Namespace {
    /// Makes the name space with that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Derives the dataset id of the volume `name` in its `generation`.
    ///
    /// It is the first half of a SHA-256 over the prefix `flocker-csi`, the name space, the name and the decimal
    /// generation, separated by NUL bytes, with the version and variant bits of a random UUID, because Flocker accepts
    /// no other UUIDs.
    pub fn dataset_id(&self, name: &VolumeName, generation: Generation) -> Uuid {
        let text = format!("flocker-csi\0{}\0{}\0{generation}", self.0, name.as_str());
        let digest = Sha256::digest(text.as_bytes());
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Builder::from_random_bytes(half).into_uuid()
    }
}

/// Returns the dataset with the id `volume_id`, or `None` if that is no dataset id.
///
/// A volume id is a dataset id in the one spelling that the plugin returns: lower case, with dashes.
pub fn dataset_of(volume_id: &str) -> Option<Uuid> {
    Uuid::try_parse(volume_id)
        .ok()
        .filter(|dataset| dataset.to_string() == volume_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_shape_that_flocker_accepts() {
        let id = Namespace::new("n").dataset_id(&VolumeName::parse("pvc-1").unwrap(), 0);
        assert_eq!(id.get_version_num(), 4);
        assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
    }

    /// Compares with the vectors of docs/volume-ids.md.
    #[test]
    fn ids_are_the_published_ones() {
        let namespace = Namespace::new("flocker.csi.clusterhq.com");
        let page = include_str!("../../docs/volume-ids.md");
        let mut rows = 0;
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = line
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            let name = VolumeName::parse(cells[1]).unwrap();
            assert_eq!(
                namespace.dataset_id(&name, cells[2].parse().unwrap()).to_string(),
                cells[3],
                "{line}"
            );
            rows += 1;
        }
        assert_eq!(rows, 6);
    }

    #[test]
    fn only_lower_case_with_dashes_is_a_dataset_id() {
        assert!(dataset_of("0fbbd6e1-f558-4ea3-b2fe-b0268d12322a").is_some());
        for other in [
            "",
            "fake-vol-id",
            "0FBBD6E1-F558-4EA3-B2FE-B0268D12322A",
            "0fbbd6e1f5584ea3b2feb0268d12322a",
        ] {
            assert_eq!(dataset_of(other), None, "{other}");
        }
    }
}
