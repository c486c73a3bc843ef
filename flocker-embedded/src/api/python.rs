//! Values as Python 2 prints them, which is how the control service quotes them in its messages.

use serde_json::{Number, Value};

use super::request_json::{foreign_number, half};

/// Returns `repr()` of a decoded JSON value.
pub(super) fn repr(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => repr_number(number),
        Value::String(text) => foreign_number(value).map_or_else(|| repr_text(text), repr_foreign),
        Value::Array(items) => format!("[{}]", join(items.iter().map(repr))),
        Value::Object(items) => {
            let items = items
                .iter()
                .map(|(key, value)| format!("{}: {}", repr_text(key), repr(value)));
            format!("{{{}}}", join(items))
        }
    }
}

/// Returns `repr()` of a unicode string.
pub(super) fn repr_text(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let escaped: String = text.chars().map(|character| escape(character, quote)).collect();
    format!("u{quote}{escaped}{quote}")
}

fn escape(character: char, quote: char) -> String {
    if let Some(half) = half(character) {
        return format!("\\u{half:04x}");
    }
    match (character, u32::from(character)) {
        ('\n', _) => "\\n".to_owned(),
        ('\r', _) => "\\r".to_owned(),
        ('\t', _) => "\\t".to_owned(),
        ('\\', _) => "\\\\".to_owned(),
        (character, _) if character == quote => format!("\\{quote}"),
        (' '..='~', _) => character.to_string(),
        (_, code @ ..0x100) => format!("\\x{code:02x}"),
        (_, code @ ..0x1_0000) => format!("\\u{code:04x}"),
        (_, code) => format!("\\U{code:08x}"),
    }
}

/// Joins the parts of a list as Python does.
pub(super) fn join(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Returns `repr()` of a number that only Python knows.
fn repr_foreign(number: &str) -> String {
    let is_long = number.ends_with(|last: char| last.is_ascii_digit());
    let mark = if is_long { "L" } else { "" };
    format!("{number}{mark}")
}

fn repr_number(number: &Number) -> String {
    match number.as_u64() {
        // Integers that need more than a machine word are long integers, which Python 2 marks.
        Some(integer) if i64::try_from(integer).is_err() => format!("{integer}L"),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_quoted_as_python_2_does() {
        let cases = [
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(5), "5"),
            (json!(102_400_000.0), "102400000.0"),
            (json!(u64::MAX), "18446744073709551615L"),
            (json!("x"), "u'x'"),
            (json!("it's"), "u\"it's\""),
            (json!("ä✓\u{1d11e}\n\\"), "u'\\xe4\\u2713\\U0001d11e\\n\\\\'"),
            (json!(["a", 1]), "[u'a', 1]"),
            (json!({"k": ["v"]}), "{u'k': [u'v']}"),
        ];
        for (value, expected) in cases {
            assert_eq!(repr(&value), expected);
        }
    }
}
