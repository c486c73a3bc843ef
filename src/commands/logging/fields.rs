//! The fields of a line: those of its event, and those of the spans around it.

use std::fmt;

use serde_json::{Number, Value};
use tracing::field::{Field, Visit};
use uuid::Uuid;

use crate::telemetry::log_names;

/// The name of the field that holds the text of an event.
pub(super) const MESSAGE: &str = "message";

/// Values by name, in the order in which they were recorded; each name once.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Returns the names and values, without the text of the event.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        let fields = self.0.iter().map(|(name, value)| (*name, value));
        fields.filter(|(name, _)| *name != MESSAGE)
    }

    /// Returns the text of the event.
    pub(super) fn message(&self) -> &str {
        let message = self.0.iter().find(|(name, _)| *name == MESSAGE);
        message.and_then(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Adds the fields of a span further out; what is further in wins.
    pub(super) fn surrounded_by(&mut self, outer: &Self) {
        for (name, value) in &outer.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push((*name, value.clone()));
            }
        }
    }

    /// Adds the host of the node that is named, and what people call the volume, where that is known.
    pub(super) fn add_names(&mut self) {
        if let Some(host) = self.uuid("node.id").and_then(log_names::host_of) {
            self.add("node.host", host);
        }
        let labels = self.uuid("volume.id").map(log_names::fields_of);
        for (name, value) in labels.into_iter().flatten() {
            self.add(name, value);
        }
    }

    fn uuid(&self, name: &str) -> Option<Uuid> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == name)?;
        Uuid::try_parse(value.as_str()?).ok()
    }

    /// Adds a field unless it is there.
    fn add(&mut self, name: &'static str, value: String) {
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, Value::String(value)));
        }
    }

    fn set(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // What libraries add to events that they made for another crate: target, file and line again.
        if name.starts_with("log.") {
            return;
        }
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, present)) => *present = value,
            None => self.0.push((name, value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::String(value.to_owned()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::Number(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::Number(value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // JSON has no infinity, and no number that is none.
        self.set(field, Number::from_f64(value).map_or(Value::Null, Value::Number));
    }
}
