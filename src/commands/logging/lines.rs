//! A line for each event, with the fields of the spans around it.
//!
//! The layers of `tracing-subscriber` repeat a field that event and span have both, and put those of spans into objects of
//! their own; a line is to be found by one name for a value, wherever it was recorded.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use serde_json::Value;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::NormalizeEvent;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::fields::{Fields, MESSAGE};
use crate::config::LogFormat;

/// For how many open spans there is room at any time.
const FEW_SPANS: usize = 64;

/// Writes a line for each event.
pub(super) struct Lines<W> {
    format: LogFormat,
    coloured: bool,
    write: W,
    /// The fields of the spans that are open. Not in the registry's extensions: these keep some memory for each span that was
    /// ever open at the same time, between what is freed, so that nothing of it is returned after a peak.
    spans: Mutex<HashMap<Id, Fields>>,
}

impl<W: Fn(&[u8]) + 'static> Lines<W> {
    /// Makes the layer; `write` is given whole lines.
    pub(super) fn new(format: LogFormat, coloured: bool, write: W) -> Self {
        Self {
            format,
            coloured,
            write,
            spans: Mutex::default(),
        }
    }
}

impl<W> Lines<W> {
    fn spans(&self) -> MutexGuard<'_, HashMap<Id, Fields>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Fn(&[u8]) + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        self.spans().insert(id.clone(), fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(fields) = self.spans().get_mut(id) {
            values.record(fields);
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut spans = self.spans();
        let closed = spans.remove(&id);
        if spans.is_empty() {
            spans.shrink_to(FEW_SPANS);
        }
        drop(spans);
        drop(closed);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let spans = self.spans();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = spans.get(&span.id()) {
                fields.surrounded_by(outer);
            }
        }
        drop(spans);
        fields.add_names();
        // Events of the crate `log` are all of one kind, and carry their level and module as fields.
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let line = match self.format {
            LogFormat::Text => text(metadata, &fields, self.coloured),
            LogFormat::Json => json(metadata, &fields),
        };
        (self.write)(&line);
    }
}

fn now() -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_micros(SystemTime::now())
}

/// Time, level and text, then the fields as `name=value`; a text that holds anything but letters, digits and the marks of
/// paths is quoted.
fn text(metadata: &Metadata<'_>, fields: &Fields, coloured: bool) -> Vec<u8> {
    let level = metadata.level();
    let (begin, dim, end) = if coloured {
        (colour(*level), "\x1b[2m", "\x1b[0m")
    } else {
        ("", "", "")
    };
    let mut line = format!(
        "{dim}{}{end} {begin}{level:>5}{end} {}",
        now(),
        one_line(fields.message())
    );
    for (name, value) in fields.iter() {
        line.extend([" ", dim, name, "=", end, &shown(value)]);
    }
    line.push('\n');
    line.into_bytes()
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().all(is_plain) && !text.is_empty() => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_./:@+,[]".contains(character)
}

/// Escapes what would end the line or change how a terminal shows it.
fn one_line(text: &str) -> String {
    text.chars()
        .flat_map(|character| {
            let escaped = character.is_control().then(|| character.escape_default());
            let plain = escaped.is_none().then_some(character);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// One object: time, level and text, then the fields, numbers as numbers, and the module that logged it.
fn json(metadata: &Metadata<'_>, fields: &Fields) -> Vec<u8> {
    let mut line = Vec::with_capacity(512);
    // Nothing of this fails: a vector can be written to, and all keys are texts.
    let mut write = || -> serde_json::Result<()> {
        let mut serializer = serde_json::Serializer::new(&mut line);
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("timestamp", &now().to_string())?;
        object.serialize_entry("level", metadata.level().as_str())?;
        object.serialize_entry(MESSAGE, fields.message())?;
        for (name, value) in fields.iter() {
            object.serialize_entry(name, value)?;
        }
        object.serialize_entry("target", metadata.target())?;
        object.end()
    };
    write().ok();
    line.write_all(b"\n").ok();
    line
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::field::Empty;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry;

    use super::*;

    /// Returns what is logged.
    fn logged(format: LogFormat, events: impl FnOnce()) -> Vec<String> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let write = {
            let lines = Arc::clone(&lines);
            move |line: &[u8]| {
                lines
                    .lock()
                    .unwrap()
                    .push(String::from_utf8(line.to_vec()).unwrap());
            }
        };
        let subscriber = registry().with(Lines::new(format, false, write));
        tracing::subscriber::with_default(subscriber, events);
        let lines = lines.lock().unwrap();
        lines.clone()
    }

    fn events() {
        let call = tracing::info_span!("rpc", volume.id = Empty, rpc.method = "NodeStageVolume");
        call.record("volume.id", "7d3c");
        let _call = call.entered();
        let step = tracing::info_span!("operation", operation.id = 4, volume.id = "7d3c");
        let _step = step.entered();
        tracing::warn!(
            volume.id = "7d3c",
            tries = 3,
            took_ms = 1.5,
            reason = "no\nroom \u{1b}[2J",
            path = "/a b",
            "It waits\nhere"
        );
    }

    #[test]
    fn a_value_that_event_and_spans_have_is_printed_once() {
        let [line] = &logged(LogFormat::Text, events)[..] else {
            panic!("it is one line")
        };
        let (_, rest) = line.split_once(' ').unwrap();
        assert_eq!(
            rest,
            " WARN It waits\\nhere volume.id=7d3c tries=3 took_ms=1.5 reason=\"no\\nroom \\u001b[2J\" path=\"/a b\" \
             operation.id=4 rpc.method=NodeStageVolume\n"
        );
    }

    #[test]
    fn an_object_is_flat_and_its_numbers_are_numbers() {
        let [line] = &logged(LogFormat::Json, events)[..] else {
            panic!("it is one line")
        };
        let object: serde_json::Map<String, Value> = serde_json::from_str(line).unwrap();
        assert_eq!(object["message"], "It waits\nhere");
        assert_eq!(object["level"], "WARN");
        assert_eq!(object["volume.id"], "7d3c");
        assert_eq!(object["tries"], 3);
        assert_eq!(object["took_ms"], 1.5);
        assert_eq!(object["operation.id"], 4);
        assert_eq!(object["rpc.method"], "NodeStageVolume");
        assert!(
            object
                .values()
                .all(|value| !value.is_object() && !value.is_array())
        );
        assert_eq!(line.matches("volume.id").count(), 1, "{line}");
    }
}
