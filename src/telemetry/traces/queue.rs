//! The spans that have ended and that the collector has not got yet, of which there is a limited number.

use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

use crate::telemetry::counters::{Counter, Counters};

/// The receiving end of the queue.
pub(super) type Waiting = mpsc::Receiver<SpanData>;

/// The sending end: it never waits, and drops what the queue has no room for.
#[derive(Debug)]
pub(super) struct Queue {
    sender: mpsc::Sender<SpanData>,
    counters: Counters,
}

/// Makes a queue for so many spans.
pub(super) fn bounded(most: usize, counters: Counters) -> (Queue, Waiting) {
    let (sender, waiting) = mpsc::channel(most);
    (Queue { sender, counters }, waiting)
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, mut span: SpanData) {
        keep_last_of_each(&mut span.attributes);
        if span.span_context.is_sampled() && self.sender.try_send(span).is_err() {
            self.counters.count(Counter::SpansDropped);
        }
    }

    // [`TraceExport`](super::TraceExport) sends what waits, in its own time.
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Removes attributes that were recorded again: the library keeps every value, and a name has one.
fn keep_last_of_each(attributes: &mut Vec<KeyValue>) {
    let mut kept: Vec<KeyValue> = Vec::with_capacity(attributes.len());
    for attribute in attributes.drain(..) {
        match kept.iter_mut().find(|known| known.key == attribute.key) {
            Some(known) => *known = attribute,
            None => kept.push(attribute),
        }
    }
    *attributes = kept;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_name_is_kept() {
        let mut attributes = ["a=1", "b=2", "a=3"]
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| KeyValue::new(name, value))
            .to_vec();
        keep_last_of_each(&mut attributes);
        assert_eq!(attributes, [KeyValue::new("a", "3"), KeyValue::new("b", "2")]);
    }
}
