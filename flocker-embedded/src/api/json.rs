//! JSON as Python's `json.dumps` writes it: a blank after `,` and `:`, ASCII only.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::request_json::half;

/// Renders a value.
pub(super) fn render(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut bytes, PythonStyle))?;
    Ok(bytes)
}

struct PythonStyle;

impl Formatter for PythonStyle {
    fn begin_array_value<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_key<W: Write + ?Sized>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        separate(writer, first)
    }

    fn begin_object_value<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if character.is_ascii() {
                write!(writer, "{character}")?;
            } else if let Some(half) = half(character) {
                write!(writer, "\\u{half:04x}")?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }
}

fn separate<W: Write + ?Sized>(writer: &mut W, first: bool) -> io::Result<()> {
    if first { Ok(()) } else { writer.write_all(b", ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn separators_and_escapes_are_those_of_python() {
        let value = json!({"a": [1, 2.0, null], "b": "Größe \u{1d11e} \"x\""});
        let text = String::from_utf8(render(&value).unwrap()).unwrap();
        assert_eq!(
            text,
            r#"{"a": [1, 2.0, null], "b": "Gr\u00f6\u00dfe \ud834\udd1e \"x\""}"#
        );
    }
}
