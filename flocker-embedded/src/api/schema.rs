//! What the bodies of requests must contain, and the messages about those that do not.
//!
//! The messages are those of the schema validator that the control service uses.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::python::{join, repr, repr_text};
use super::reply::Refusal;
use super::request_json::{as_f64, decode, foreign_number, is_number, remainder, text};
use crate::store::Size;

const MINIMUM_SIZE: u64 = 64 << 20;
const SIZE_UNIT: u64 = 1024;
const METADATA_ITEMS: usize = 16;
const METADATA_TEXT: usize = 256;
const UUID_LENGTH: usize = 36;
const UUID_PATTERN: &str =
    "^[A-Fa-f0-9]{8}-[A-Fa-f0-9]{4}-4[A-Fa-f0-9]{3}-[89abAB][A-Fa-f0-9]{3}-[A-Fa-f0-9]{12}$";

/// A valid body of a create.
pub(super) struct CreateDataset {
    pub(super) primary: Uuid,
    pub(super) dataset_id: Option<Uuid>,
    pub(super) maximum_size: Option<Size>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Whether `deleted` was sent, which the schema allows and the control service fails on.
    pub(super) deleted: bool,
}

/// A valid body of an acquire.
pub(super) struct AcquireLease {
    /// Any text of 36 characters: the schema requires no more.
    pub(super) dataset_id: String,
    pub(super) node: Uuid,
    pub(super) expires: Option<f64>,
}

/// Decodes and checks the body of a create.
pub(super) fn create_dataset(body: &[u8]) -> Result<CreateDataset, Refusal> {
    let body = decode(body)?;
    let fields = object(&body, 2)?;
    let mut check = Check::default();
    check.known(
        fields,
        &["primary", "dataset_id", "maximum_size", "metadata", "deleted"],
    );
    let maximum_size = fields.get("maximum_size").and_then(|value| check.size(value));
    let metadata = fields
        .get("metadata")
        .map(|value| check.metadata(value))
        .unwrap_or_default();
    if let Some(value) = fields.get("deleted").filter(|value| !value.is_boolean()) {
        check.mistype(value, "'boolean'");
    }
    let dataset_id = fields.get("dataset_id").and_then(|value| check.uuid(value));
    let primary = fields.get("primary").and_then(|value| check.uuid(value));
    check.required(fields, &["primary"]);
    check.finish()?;
    Ok(CreateDataset {
        primary: primary.ok_or(Refusal::Bug)?,
        dataset_id,
        maximum_size,
        metadata,
        deleted: fields.contains_key("deleted"),
    })
}

/// Decodes and checks the body of an update, and returns the new primary if the body has one.
pub(super) fn update_dataset(body: &[u8]) -> Result<Option<Uuid>, Refusal> {
    let body = decode(body)?;
    let fields = object(&body, 1)?;
    let mut check = Check::default();
    check.known(fields, &["primary"]);
    let primary = fields.get("primary").and_then(|value| check.uuid(value));
    check.finish()?;
    Ok(primary)
}

/// Decodes and checks the body of an acquire.
pub(super) fn acquire_lease(body: &[u8]) -> Result<AcquireLease, Refusal> {
    let body = decode(body)?;
    let fields = object(&body, 1)?;
    let mut check = Check::default();
    check.known(fields, &["dataset_id", "node_uuid", "expires"]);
    let dataset_id = fields
        .get("dataset_id")
        .and_then(|value| check.text_of_uuid_length(value));
    let node = fields.get("node_uuid").and_then(|value| check.uuid(value));
    let expires = fields.get("expires").and_then(|value| {
        if !is_number(value) && !value.is_null() {
            check.mistype(value, "'number', 'null'");
        }
        as_f64(value)
    });
    check.required(fields, &["dataset_id", "node_uuid", "expires"]);
    check.finish()?;
    Ok(AcquireLease {
        dataset_id: dataset_id.ok_or(Refusal::Bug)?,
        node: node.ok_or(Refusal::Bug)?,
        expires,
    })
}

/// Returns the fields of a body; the message that it has none is repeated for each schema that requires them.
fn object(body: &Value, schemas: usize) -> Result<&Map<String, Value>, Refusal> {
    body.as_object()
        .ok_or_else(|| Refusal::Schema(vec![format!("{} is not of type 'object'", repr(body)); schemas]))
}

/// Collects the mistakes of one body.
#[derive(Default)]
struct Check {
    mistakes: Vec<String>,
}

impl Check {
    fn finish(self) -> Result<(), Refusal> {
        if self.mistakes.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Schema(self.mistakes))
        }
    }

    fn mistype(&mut self, value: &Value, expected: &str) {
        self.mistakes
            .push(format!("{} is not of type {expected}", repr(value)));
    }

    fn unexpected(&mut self, fields: &[&String]) {
        let verb = match fields {
            [] => return,
            [_] => "was",
            _ => "were",
        };
        let list = join(fields.iter().map(|field| repr_text(field)));
        self.mistakes.push(format!(
            "Additional properties are not allowed ({list} {verb} unexpected)"
        ));
    }

    fn known(&mut self, fields: &Map<String, Value>, known: &[&str]) {
        let unknown: Vec<_> = fields
            .keys()
            .filter(|field| !known.contains(&field.as_str()))
            .collect();
        self.unexpected(&unknown);
    }

    fn required(&mut self, fields: &Map<String, Value>, required: &[&str]) {
        for field in required.iter().filter(|field| !fields.contains_key(**field)) {
            self.mistakes.push(format!("'{field}' is a required property"));
        }
    }

    fn uuid(&mut self, value: &Value) -> Option<Uuid> {
        let Some(text) = text(value) else {
            // Two schemas report it: that of the property and that of a UUID.
            self.mistype(value, "'string'");
            self.mistype(value, "'string'");
            return None;
        };
        let uuid = uuid_version_4(text);
        if uuid.is_none() {
            self.mistakes
                .push(format!("{} does not match '{UUID_PATTERN}'", repr_text(text)));
        }
        self.length(text, UUID_LENGTH, UUID_LENGTH);
        uuid
    }

    fn text_of_uuid_length(&mut self, value: &Value) -> Option<String> {
        let Some(text) = text(value) else {
            self.mistype(value, "'string'");
            return None;
        };
        self.length(text, UUID_LENGTH, UUID_LENGTH);
        Some(text.to_owned())
    }

    fn length(&mut self, text: &str, least: usize, most: usize) {
        let length = text.chars().count();
        if length < least {
            self.mistakes.push(format!("{} is too short", repr_text(text)));
        } else if length > most {
            self.mistakes.push(format!("{} is too long", repr_text(text)));
        }
    }

    fn size(&mut self, value: &Value) -> Option<Size> {
        if value.is_null() {
            return None;
        }
        let long =
            foreign_number(value).filter(|number| number.ends_with(|last: char| last.is_ascii_digit()));
        let size = match (value.as_u64(), long) {
            (Some(size), _) => Some(Size::Bytes(size)),
            (None, Some(digits)) => Some(Size::Long(digits.to_owned())),
            (None, None) => None,
        };
        if size.is_none() && !value.is_i64() {
            self.mistype(value, "'integer', 'null'");
        }
        #[allow(
            clippy::cast_precision_loss,
            reason = "both constants are exact as floating point"
        )]
        let (small, odd) = match (&size, as_f64(value)) {
            (Some(Size::Bytes(size)), _) => (*size < MINIMUM_SIZE, size % SIZE_UNIT != 0),
            (Some(Size::Long(digits)), _) => (digits.starts_with('-'), remainder(digits, SIZE_UNIT) != 0),
            (None, Some(size)) => (size < MINIMUM_SIZE as f64, size % SIZE_UNIT as f64 != 0.0),
            // Not a number: its type is the only mistake.
            (None, None) => (false, false),
        };
        if small {
            self.mistakes.push(format!(
                "{} is less than the minimum of {MINIMUM_SIZE}",
                repr(value)
            ));
        }
        if odd {
            self.mistakes
                .push(format!("{} is not a multiple of {SIZE_UNIT}", repr(value)));
        }
        size
    }

    fn metadata(&mut self, value: &Value) -> BTreeMap<String, String> {
        let Some(items) = value.as_object() else {
            self.mistype(value, "'object'");
            return BTreeMap::new();
        };
        if items.len() > METADATA_ITEMS {
            self.mistakes
                .push(format!("{} has too many properties", repr(value)));
        }
        let unexpected: Vec<_> = items.keys().filter(|key| !is_metadata_key(key)).collect();
        self.unexpected(&unexpected);
        let mut metadata = BTreeMap::new();
        for (key, value) in items.iter().filter(|(key, _)| is_metadata_key(key)) {
            if let Some(text) = text(value) {
                self.length(text, 0, METADATA_TEXT);
                metadata.insert(key.clone(), text.to_owned());
            } else {
                self.mistype(value, "'string'");
            }
        }
        metadata
    }
}

/// Returns the UUID if its text matches [`UUID_PATTERN`].
fn uuid_version_4(text: &str) -> Option<Uuid> {
    let version = text.as_bytes().get(14)?;
    let variant = text.as_bytes().get(19)?;
    let dashes = [8, 13, 18, 23]
        .iter()
        .all(|place| text.as_bytes().get(*place) == Some(&b'-'));
    let matches = text.len() == UUID_LENGTH && dashes && *version == b'4' && b"89abAB".contains(variant);
    if matches { Uuid::parse_str(text).ok() } else { None }
}

/// Returns whether a key matches `^.{1,256}$`: no line break, except one at the end, which `$` accepts.
fn is_metadata_key(key: &str) -> bool {
    let line = key.strip_suffix('\n').unwrap_or(key);
    !line.contains('\n') && (1..=METADATA_TEXT).contains(&line.chars().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "0fbbd6e1-f558-4ea3-b2fe-b0268d12322a";

    fn mistakes<T>(outcome: Result<T, Refusal>) -> Vec<String> {
        match outcome {
            Err(Refusal::Schema(mut mistakes)) => {
                mistakes.sort();
                mistakes
            }
            Err(refusal) => panic!("{refusal:?}"),
            Ok(_) => panic!("it was accepted"),
        }
    }

    #[test]
    fn every_mistake_of_a_create_is_reported_in_the_words_of_the_validator() {
        let pattern = format!("u'x' does not match '{UUID_PATTERN}'");
        let cases: [(&str, &[&str]); 10] = [
            (
                r#"{"primary": "x", "maximum_size": 5, "zzz": 1}"#,
                &[
                    "5 is less than the minimum of 67108864",
                    "5 is not a multiple of 1024",
                    "Additional properties are not allowed (u'zzz' was unexpected)",
                    &pattern,
                    "u'x' is too short",
                ],
            ),
            (
                "[]",
                &["[] is not of type 'object'", "[] is not of type 'object'"],
            ),
            ("{}", &["'primary' is a required property"]),
            (
                r#"{"primary": null}"#,
                &["None is not of type 'string'", "None is not of type 'string'"],
            ),
            (
                r#"{"primary": "NODE", "maximum_size": 67108864.5}"#,
                &[
                    "67108864.5 is not a multiple of 1024",
                    "67108864.5 is not of type 'integer', 'null'",
                ],
            ),
            (
                r#"{"primary": "NODE", "maximum_size": 1.024e8}"#,
                &["102400000.0 is not of type 'integer', 'null'"],
            ),
            (
                r#"{"primary": "NODE", "maximum_size": -1024}"#,
                &["-1024 is less than the minimum of 67108864"],
            ),
            (
                r#"{"primary": "NODE", "metadata": {"k": 1}}"#,
                &["1 is not of type 'string'"],
            ),
            (
                r#"{"primary": "NODE", "metadata": {"": "v", "a\nb": "v"}}"#,
                &["Additional properties are not allowed (u'', u'a\\nb' were unexpected)"],
            ),
            (
                r#"{"primary": "NODE", "metadata": ["a"]}"#,
                &["[u'a'] is not of type 'object'"],
            ),
        ];
        for (body, expected) in cases {
            let body = body.replace("NODE", NODE);
            assert_eq!(mistakes(create_dataset(body.as_bytes())), expected, "{body}");
        }
    }

    #[test]
    fn a_create_takes_null_for_no_size_and_ids_in_capitals() {
        let body = format!(
            r#"{{"primary": "{}", "maximum_size": null}}"#,
            NODE.to_uppercase()
        );
        let create = create_dataset(body.as_bytes()).ok().unwrap();
        assert_eq!(
            (create.primary.to_string().as_str(), create.maximum_size),
            (NODE, None)
        );
    }

    #[test]
    fn an_update_takes_a_primary_or_nothing() {
        assert_eq!(update_dataset(b"{}"), Ok(None));
        let resize = update_dataset(br#"{"maximum_size": 134217728}"#);
        let expected = "Additional properties are not allowed (u'maximum_size' was unexpected)";
        assert_eq!(mistakes(resize), [expected]);
    }

    #[test]
    fn a_lease_needs_all_its_fields_but_any_36_characters_as_id() {
        let missing = acquire_lease(br#"{"dataset_id": "x"}"#);
        let expected = [
            "'expires' is a required property",
            "'node_uuid' is a required property",
            "u'x' is too short",
        ];
        assert_eq!(mistakes(missing), expected);

        let odd = format!(
            r#"{{"dataset_id": "{}", "node_uuid": "{NODE}", "expires": -5}}"#,
            "x".repeat(36)
        );
        let lease = acquire_lease(odd.as_bytes()).ok().unwrap();
        assert_eq!(lease.expires, Some(-5.0));
    }

    #[test]
    fn what_is_no_json_is_refused_as_such() {
        for body in [
            &b""[..],
            b"{",
            b"\xef\xbb\xbf{}",
            b"primary=x",
            b"{\"k\": \"\xff\"}",
        ] {
            assert_eq!(update_dataset(body), Err(Refusal::Undecodable));
        }
    }
}
