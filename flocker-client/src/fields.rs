//! The fields of an object, each decoded by itself, so that one that cannot be decoded costs no other.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// The largest whole number that a floating-point number represents exactly.
const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;

/// What a field holds.
#[derive(Debug, PartialEq)]
pub(crate) enum Field<T> {
    /// The object does not have it, or it is `null`.
    Absent,
    /// A value.
    Value(T),
    /// Something else.
    Unreadable,
}

impl<T> Field<T> {
    /// Returns the value, if it can be read.
    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }

    fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Value(value) => read(value).map_or(Field::Unreadable, Field::Value),
            Self::Unreadable => Field::Unreadable,
        }
    }
}

/// The text of those fields of an object that are known, in the order of their keys.
pub(crate) struct Fields<'a>(Vec<Option<&'a RawValue>>);

impl<'a> Fields<'a> {
    /// Splits the text of an object; of a key that occurs twice, the last value counts, as it does for Flocker.
    ///
    /// # Errors
    /// The text is no object of JSON.
    pub(crate) fn of(text: &'a [u8], keys: &[&str]) -> Result<Self, serde_json::Error> {
        let mut parser = serde_json::Deserializer::from_slice(text);
        let values = parser.deserialize_map(Known(keys))?;
        parser.end()?;
        Ok(Self(values))
    }

    /// Returns the text of the field whose key has this position.
    pub(crate) fn text(&self, position: usize) -> Option<&'a str> {
        let value = self.0.get(position).copied().flatten();
        value.map(RawValue::get).filter(|text| *text != "null")
    }

    /// Decodes a field.
    pub(crate) fn get<T: DeserializeOwned>(&self, position: usize) -> Field<T> {
        match self.text(position).map(serde_json::from_str) {
            None => Field::Absent,
            Some(Ok(value)) => Field::Value(value),
            Some(Err(_)) => Field::Unreadable,
        }
    }

    /// Decodes a size. Versions of Flocker before 1.10.2 stored whole numbers that are written as floating-point numbers.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range and the fraction are checked"
    )]
    pub(crate) fn size(&self, position: usize) -> Field<u64> {
        match self.get(position) {
            Field::Unreadable => self.get(position).and_then(|size: f64| {
                let is_exact = (0.0..=LARGEST_EXACT).contains(&size) && size.fract() == 0.0;
                is_exact.then_some(size as u64)
            }),
            size => size,
        }
    }

    /// Decodes a text; returns with it whether it is Unicode as it is. What is not has been replaced.
    pub(crate) fn string(&self, position: usize) -> Field<(String, bool)> {
        self.get(position).and_then(|text: Text| {
            let is_exact = text.is_exact;
            Some((text.text, is_exact))
        })
    }

    /// Decodes an object of texts; returns with it whether it is exactly that.
    pub(crate) fn texts(&self, position: usize) -> Field<(BTreeMap<String, String>, bool)> {
        self.get(position)
            .and_then(|Texts { texts, is_exact }| Some((texts, is_exact)))
    }
}

/// Keeps the values of known keys.
struct Known<'k>(&'k [&'k str]);

impl<'a> Visitor<'a> for Known<'_> {
    type Value = Vec<Option<&'a RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = vec![None; self.0.len()];
        while let Some(position) = map.next_key_seed(Position(self.0))? {
            match position.and_then(|position| values.get_mut(position)) {
                Some(value) => *value = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values)
    }
}

/// Finds the position of a key.
struct Position<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for Position<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As bytes, because a key may hold half of a surrogate pair, which no string can.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Position<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| known.as_bytes() == key))
    }
}

/// A text as Flocker stores it: Unicode, or with halves of surrogate pairs, which are replaced.
struct Text {
    text: String,
    is_exact: bool,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
                let text = String::from_utf8_lossy(bytes);
                let is_exact = matches!(text, Cow::Borrowed(_));
                let text = text.into_owned();
                Ok(Text { text, is_exact })
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// The texts of an object, as far as they are texts.
struct Texts {
    texts: BTreeMap<String, String>,
    is_exact: bool,
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = BTreeMap::new();
                let mut is_exact = true;
                while let Some(key) = map.next_key::<Text>()? {
                    let value: &RawValue = map.next_value()?;
                    match serde_json::from_str::<Text>(value.get()) {
                        Ok(value) => {
                            is_exact &= key.is_exact && value.is_exact;
                            texts.insert(key.text, value.text);
                        }
                        Err(_) => is_exact = false,
                    }
                }
                Ok(Texts { texts, is_exact })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Returns the text of an element in which what Python writes and JSON does not know is replaced by texts: the numbers
/// `NaN`, `Infinity` and `-Infinity`, and bytes that are no UTF-8. Their fields can then be told from the others.
pub(crate) fn repaired(text: &[u8]) -> Vec<u8> {
    const NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let text = String::from_utf8_lossy(text);
    let mut repaired = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = &*text;
    while let Some(c) = rest.chars().next() {
        let number = NUMBERS
            .iter()
            .find(|number| !in_string && rest.starts_with(**number));
        if let Some(number) = number {
            repaired.push('"');
            repaired.push_str(number);
            repaired.push('"');
            rest = &rest[number.len()..];
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            _ => {}
        }
        repaired.push(c);
        rest = &rest[c.len_utf8()..];
    }
    repaired.into_bytes()
}
