//! The configuration tag, which a change of one entry changes without any other entry being read.
//!
//! Each entry of the configuration has a digest, and the tag is made of their sum. So it depends on the entries alone: it
//! changes with every change of the configuration, and is the earlier one if the configuration becomes the earlier one.

use openssl::sha::Sha256;
use serde::Serialize;
use uuid::Uuid;

use super::model::{Dataset, Lease};

/// The digest of one entry of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryDigest([u128; 2]);

impl EntryDigest {
    pub(super) fn of_dataset(id: Uuid, dataset: &Dataset) -> serde_json::Result<Self> {
        Self::of("dataset", id, dataset)
    }

    pub(super) fn of_lease(id: Uuid, lease: &Lease) -> serde_json::Result<Self> {
        Self::of("lease", id, lease)
    }

    /// Returns the digest of a dataset's mark that an agent has recorded its volume.
    pub(super) fn of_registration(id: Uuid) -> serde_json::Result<Self> {
        Self::of("registered", id, &())
    }

    fn of(kind: &str, id: Uuid, entry: &impl Serialize) -> serde_json::Result<Self> {
        let mut hash = Sha256::new();
        hash.update(kind.as_bytes());
        hash.update(id.as_bytes());
        hash.update(&serde_json::to_vec(entry)?);
        let digest = hash.finish();
        let half = |from: usize| u128::from_be_bytes(std::array::from_fn(|index| digest[from + index]));
        Ok(Self([half(0), half(16)]))
    }
}

/// The sum of the digests of all entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TagSum([u128; 2]);

impl TagSum {
    pub(super) fn add(&mut self, EntryDigest(digest): EntryDigest) {
        for (sum, part) in self.0.iter_mut().zip(digest) {
            *sum = sum.wrapping_add(part);
        }
    }

    pub(super) fn subtract(&mut self, EntryDigest(digest): EntryDigest) {
        for (sum, part) in self.0.iter_mut().zip(digest) {
            *sum = sum.wrapping_sub(part);
        }
    }

    /// Returns the tag: 32 hexadecimal digits.
    pub(super) fn tag(self) -> String {
        let digest = openssl::sha::sha256(&self.to_bytes());
        let start = std::array::from_fn(|index| digest[index]);
        format!("{:032x}", u128::from_be_bytes(start))
    }

    pub(super) fn to_bytes(self) -> [u8; 32] {
        let [first, second] = self.0.map(u128::to_be_bytes);
        std::array::from_fn(|index| {
            if index < 16 {
                first[index]
            } else {
                second[index - 16]
            }
        })
    }

    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        let half = |from: usize| u128::from_be_bytes(std::array::from_fn(|index| bytes[from + index]));
        Self([half(0), half(16)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_changes_does_not_matter_and_what_is_removed_leaves_no_trace() {
        let [one, two] = [1, 2].map(|id| EntryDigest::of_registration(Uuid::from_u128(id)).unwrap());
        let (mut forth, mut back) = (TagSum::default(), TagSum::default());
        forth.add(one);
        forth.add(two);
        back.add(two);
        back.add(one);
        assert_eq!(forth, back);
        assert_eq!(TagSum::from_bytes(forth.to_bytes()), forth);
        assert_eq!(forth.tag().len(), 32);
        forth.subtract(two);
        assert_ne!(forth.tag(), back.tag());
        forth.subtract(one);
        assert_eq!(forth, TagSum::default());
    }
}
