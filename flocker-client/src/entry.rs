//! Entries of Flocker's lists. Flocker stores what clients send with little validation and lists it permanently, so an
//! entry that does not fit costs no other entry.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde_json::error::Category;
use uuid::Uuid;

use crate::{
    Dataset, DatasetState, Lease, Node,
    error::{DecodeError, one_line},
    fields::{Field, Fields, repaired},
    model::UnreadableParts,
};

/// The maximum number of faults of a list that are described.
const DESCRIBED: usize = 100;
/// The maximum length of the text of a field in a description, in characters.
const EXCERPT: usize = 80;

/// A list of Flocker, as far as it can be decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<T> {
    /// The entries, in no particular order.
    pub entries: Vec<T>,
    /// What cannot be decoded.
    pub unreadable: Unreadable,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            unreadable: Unreadable::default(),
        }
    }
}

impl<T> std::ops::Deref for Listed<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.entries
    }
}

impl<T> IntoIterator for Listed<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

/// What of a list cannot be decoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unreadable {
    /// The entries that are missing in the list because a part of them that decides what they mean cannot be decoded.
    pub entries: Vec<UnreadableEntry>,
    /// The number of elements that are missing in the list and whose id cannot be decoded either.
    pub without_id: usize,
    /// The first faults, also those of entries that are in the list. An entry has at most one.
    pub faults: Vec<EntryFault>,
}

/// An entry that exists and whose meaning cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableEntry {
    /// Id of the dataset that it is about.
    pub dataset_id: Uuid,
    /// The node in it, if that can be decoded: a dataset's primary.
    pub node: Option<Uuid>,
}

/// Why an entry cannot be decoded as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryFault {
    /// Id of the entry, unless it is that which cannot be decoded.
    pub id: Option<Uuid>,
    /// The fields that cannot be decoded, with the beginning of their texts: one line of limited length.
    pub reason: String,
}

/// What an element of a list is.
pub(crate) enum Element<T> {
    /// An entry.
    Entry(T),
    /// An entry whose meaning cannot be decoded.
    Unreadable(UnreadableEntry),
    /// Something without an id.
    WithoutId,
}

/// What can be an entry of a list.
pub(crate) trait Entry: Sized {
    /// The keys of its fields. The first is that of its id.
    const KEYS: &[&str];

    /// Decodes it from its fields, and adds to `faulty` the positions of the keys whose fields cannot be decoded.
    fn of(fields: &Fields<'_>, faulty: &mut Vec<usize>) -> Element<Self>;
}

/// Decodes the text of one entry that has no fault but in what clients have stored in it as they liked.
///
/// # Errors
/// The text is no object of JSON, or a field that decides what it means cannot be decoded.
pub(crate) fn decode_entry<T: Entry>(text: &[u8]) -> Result<T, DecodeError> {
    let decoded = with_fields::<T, _>(text, |fields| {
        let mut faulty = Vec::new();
        match T::of(fields, &mut faulty) {
            Element::Entry(entry) => Ok(entry),
            Element::Unreadable(_) | Element::WithoutId => Err(describe::<T>(fields, &faulty)),
        }
    });
    decoded
        .map_err(|error| DecodeError::at("", text, error))?
        .map_err(|reason| DecodeError::Entry { reason })
}

/// Decodes the text of the next element of a list.
///
/// # Errors
/// The text is not JSON, so that nothing that follows can be relied on.
pub(crate) fn push<T: Entry>(listed: &mut Listed<T>, text: &[u8]) -> Result<(), serde_json::Error> {
    let describes = listed.unreadable.faults.len() < DESCRIBED;
    let decoded = with_fields::<T, _>(text, |fields| {
        let mut faulty = Vec::new();
        let element = T::of(fields, &mut faulty);
        let fault = (describes && !faulty.is_empty()).then(|| EntryFault {
            id: fields.get(0).value(),
            reason: describe::<T>(fields, &faulty),
        });
        (element, fault)
    });
    let (element, fault) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            // Unless it is JSON, nothing that follows can be relied on.
            if serde_json::from_slice::<IgnoredAny>(text).is_err() {
                return Err(error);
            }
            let start = String::from_utf8_lossy(text.get(..4 * EXCERPT).unwrap_or(text));
            let fault = describes.then(|| EntryFault {
                id: None,
                reason: format!("it is no object: {}", beginning(&start)),
            });
            (Element::WithoutId, fault)
        }
    };
    match element {
        Element::Entry(entry) => listed.entries.push(entry),
        Element::Unreadable(entry) => listed.unreadable.entries.push(entry),
        Element::WithoutId => listed.unreadable.without_id += 1,
    }
    listed.unreadable.faults.extend(fault);
    Ok(())
}

/// Splits the text of an object into the fields of `T`.
fn with_fields<T: Entry, R>(
    text: &[u8],
    read: impl FnOnce(&Fields<'_>) -> R,
) -> Result<R, serde_json::Error> {
    match Fields::of(text, T::KEYS) {
        Ok(fields) => Ok(read(&fields)),
        Err(error) if error.classify() == Category::Data => Err(error),
        Err(error) => match Fields::of(&repaired(text), T::KEYS) {
            Ok(fields) => Ok(read(&fields)),
            Err(_) => Err(error),
        },
    }
}

/// Names the fields that cannot be decoded.
fn describe<T: Entry>(fields: &Fields<'_>, faulty: &[usize]) -> String {
    let described = faulty.iter().filter_map(|position| {
        let key = T::KEYS.get(*position)?;
        Some(match fields.text(*position) {
            Some(text) => format!("{key} is {}", beginning(text)),
            None => format!("{key} is missing"),
        })
    });
    described.collect::<Vec<_>>().join(", ")
}

/// Returns the beginning of a text, which may be very long.
fn beginning(text: &str) -> String {
    let start: String = text.chars().take(4 * EXCERPT).collect();
    one_line(&start, EXCERPT)
}

/// Returns the value of a field, and notes one that cannot be decoded.
fn optional<T>(field: Field<T>, position: usize, faulty: &mut Vec<usize>) -> Option<T> {
    if matches!(field, Field::Unreadable) {
        faulty.push(position);
    }
    field.value()
}

/// As [`optional`], for a field that has to exist.
fn required<T>(field: Field<T>, position: usize, faulty: &mut Vec<usize>) -> Option<T> {
    let value = field.value();
    if value.is_none() {
        faulty.push(position);
    }
    value
}

impl Entry for Dataset {
    const KEYS: &[&str] = &["dataset_id", "primary", "deleted", "maximum_size", "metadata"];

    fn of(fields: &Fields<'_>, faulty: &mut Vec<usize>) -> Element<Self> {
        let Some(dataset_id) = required(fields.get(0), 0, faulty) else {
            return Element::WithoutId;
        };
        let deleted = match fields.get(2) {
            Field::Absent => Some(false),
            Field::Value(deleted) => Some(deleted),
            Field::Unreadable => None,
        };
        if deleted == Some(true) {
            // Only its id matters, and where it may still have to be destroyed. The rest is not decoded.
            return Element::Entry(Self {
                dataset_id,
                primary: fields.get(1).value().unwrap_or_default(),
                deleted: true,
                maximum_size: fields.size(3).value(),
                metadata: BTreeMap::new(),
                unreadable: UnreadableParts::default(),
            });
        }
        let primary = required(fields.get(1), 1, faulty);
        let (Some(primary), Some(deleted)) = (primary, deleted) else {
            if deleted.is_none() {
                faulty.push(2);
            }
            return Element::Unreadable(UnreadableEntry {
                dataset_id,
                node: primary,
            });
        };
        let faults_before = faulty.len();
        let maximum_size = optional(fields.size(3), 3, faulty);
        let size = faulty.len() > faults_before;
        let (metadata, is_exact) = match fields.texts(4) {
            Field::Absent => Default::default(),
            Field::Value(metadata) => metadata,
            Field::Unreadable => (BTreeMap::new(), false),
        };
        let has_metadata = fields.text(4).is_some();
        let metadata_is_faulty = has_metadata && !is_exact;
        if metadata_is_faulty {
            faulty.push(4);
        }
        Element::Entry(Self {
            dataset_id,
            primary,
            deleted,
            maximum_size,
            metadata,
            unreadable: UnreadableParts {
                size,
                metadata: metadata_is_faulty,
            },
        })
    }
}

impl Entry for DatasetState {
    const KEYS: &[&str] = &["dataset_id", "maximum_size", "primary", "path"];

    fn of(fields: &Fields<'_>, faulty: &mut Vec<usize>) -> Element<Self> {
        let Some(dataset_id) = required(fields.get(0), 0, faulty) else {
            return Element::WithoutId;
        };
        let maximum_size = optional(fields.size(1), 1, faulty);
        let before = faulty.len();
        let primary = optional(fields.get(2), 2, faulty);
        let unreadable_primary = faulty.len() > before;
        let path = optional(fields.string(3), 3, faulty);
        if path.as_ref().is_some_and(|(_, is_exact)| !is_exact) {
            faulty.push(3);
        }
        Element::Entry(Self {
            dataset_id,
            maximum_size,
            primary,
            path: path.map(|(path, _)| path.into()),
            unreadable_primary,
        })
    }
}

impl Entry for Node {
    const KEYS: &[&str] = &["uuid", "host"];

    fn of(fields: &Fields<'_>, faulty: &mut Vec<usize>) -> Element<Self> {
        let Some(uuid) = required(fields.get(0), 0, faulty) else {
            return Element::WithoutId;
        };
        let host = required(fields.string(1), 1, faulty);
        if host.as_ref().is_some_and(|(_, is_exact)| !is_exact) {
            faulty.push(1);
        }
        let host = host.map(|(host, _)| host).unwrap_or_default();
        Element::Entry(Self { uuid, host })
    }
}

impl Entry for Lease {
    const KEYS: &[&str] = &["dataset_id", "node_uuid", "expires"];

    fn of(fields: &Fields<'_>, faulty: &mut Vec<usize>) -> Element<Self> {
        let Some(dataset_id) = required(fields.get(0), 0, faulty) else {
            return Element::WithoutId;
        };
        let before = faulty.len();
        let mut expires = optional(fields.get(2), 2, faulty);
        if faulty.len() > before {
            // It expires at a time that is not known, so it protects nothing permanently.
            expires = Some(0.0);
        }
        match required(fields.get(1), 1, faulty) {
            Some(node_uuid) => Element::Entry(Self {
                dataset_id,
                node_uuid,
                expires,
            }),
            None => Element::Unreadable(UnreadableEntry {
                dataset_id,
                node: None,
            }),
        }
    }
}
