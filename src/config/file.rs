//! The configuration file, converted to flags.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

/// One key of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) values: Result<Vec<Value>, String>,
}

/// One value in the form of the flag of that name. A repeatable key can have several.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) line: usize,
    pub(super) text: String,
}

/// A syntax error of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed {
    pub(super) line: usize,
    pub(super) text: String,
}

/// Reads the keys of a TOML document in the order of their lines.
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, Vec<Malformed>> {
    let lines = Lines(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let malformed = |error: &toml::de::Error| Malformed {
            line: error.span().map_or(1, |span| lines.of(&span)),
            text: error.message().to_owned(),
        };
        return Err(errors.iter().map(malformed).collect());
    }
    let mut entries: Vec<_> = table
        .get_ref()
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            line: lines.of(&key.span()),
            values: lines.values(value),
        })
        .collect();
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

struct Lines<'a>(&'a str);

impl Lines<'_> {
    fn of(&self, span: &Range<usize>) -> usize {
        let before = self.0.as_bytes().iter().take(span.start);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn values(&self, value: &Spanned<DeValue<'_>>) -> Result<Vec<Value>, String> {
        match value.get_ref() {
            DeValue::Array(array) => self.elements(array),
            single => Ok(vec![Value {
                line: self.of(&value.span()),
                text: flag_text(single)?,
            }]),
        }
    }

    fn elements(&self, array: &DeArray<'_>) -> Result<Vec<Value>, String> {
        array
            .iter()
            .map(|element| {
                Ok(Value {
                    line: self.of(&element.span()),
                    text: flag_text(element.get_ref())?,
                })
            })
            .collect()
    }
}

/// Returns a value in the form of a flag: a table becomes `key=value,key=value`.
fn flag_text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::Table(table) => {
            let pair = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let (key, text): (&std::borrow::Cow<'_, str>, _) =
                    (key.get_ref(), scalar_text(value.get_ref())?);
                if text.contains(',') {
                    return Err(format!("{key}: expected a value without commas"));
                }
                Ok(format!("{key}={text}"))
            };
            let pairs: Result<Vec<_>, String> = table.iter().map(pair).collect();
            Ok(pairs?.join(","))
        }
        scalar => scalar_text(scalar),
    }
}

fn scalar_text(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "expected a smaller number".to_owned()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => Err(format!(
            "expected a text or a whole number, found: {}",
            value.type_str()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let flat = |entry: Entry| {
            let values = entry.values.unwrap_or_else(|error| {
                vec![Value {
                    line: entry.line,
                    text: error,
                }]
            });
            values
                .into_iter()
                .map(move |value| (value.line, entry.key.clone(), value.text))
        };
        parse(text).unwrap().into_iter().flat_map(flat).collect()
    }

    #[test]
    fn a_document_becomes_flags_with_their_lines() {
        let text = "# comment\nmode = \"node\"\n\nmax_volumes_per_node = 0x15\n[[pool]]\ncapacity = \"1TiB\"\n\
                    [[pool]]\ncapacity = 1024\nper_node = true\n";
        let flags: Vec<_> = read(text)
            .into_iter()
            .map(|(line, key, text)| format!("{line} {key} {text}"))
            .collect();
        assert_eq!(
            flags,
            [
                "2 mode node",
                "4 max_volumes_per_node 21",
                "5 pool capacity=1TiB",
                "7 pool capacity=1024,per_node=true"
            ]
        );
    }

    #[test]
    fn values_of_unsupported_types_are_refused_with_the_type() {
        let read = read("a = 1.5\nb = [[1]]\nc = 2026-01-01\npool = { profile = \"a,b\" }\n");
        for ((_, key, text), part) in read.iter().zip(["float", "array", "datetime", "without commas"]) {
            assert!(text.contains(part), "{key}: {text}");
        }
        assert_eq!(read.len(), 4);
    }

    #[test]
    fn every_syntax_error_has_its_line() {
        let malformed = parse("mode = \"all\"\nendpoint = \nlog = \"info\"\nlog_format = 'x\n").unwrap_err();
        let lines: Vec<_> = malformed.iter().map(|malformed| malformed.line).collect();
        assert_eq!(lines, [2, 4], "{malformed:?}");
        assert!(parse("a = 1\na = 2\n").is_err_and(|malformed| malformed[0].line == 2));
    }
}
