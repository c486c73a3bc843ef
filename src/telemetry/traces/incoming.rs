//! The trace that a caller names: `traceparent` and `tracestate`, by the W3C's recommendation "Trace Context".

use std::collections::HashMap;

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry_sdk::propagation::TraceContextPropagator;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// What the recommendation requires to pass on; what is longer is left out, as it is kept with every span.
const LONGEST_TRACESTATE: usize = 512;

/// Returns the span of the caller; an empty context where it names none, or not in the right form.
pub(super) fn context(headers: &HeaderMap) -> Context {
    let mut parents = headers.get_all(TRACEPARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else {
        return Context::new();
    };
    let Some(parent) = parent.to_str().ok().filter(|parent| is_well_formed(parent)) else {
        return Context::new();
    };
    let mut named = HashMap::from([(TRACEPARENT.to_owned(), parent.to_owned())]);
    let states: Result<Vec<_>, _> = headers
        .get_all(TRACESTATE)
        .iter()
        .map(|state| state.to_str())
        .collect();
    let state = states.map(|states| states.join(",")).unwrap_or_default();
    if !state.is_empty() && state.len() <= LONGEST_TRACESTATE {
        named.insert(TRACESTATE.to_owned(), state);
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &named)
}

/// Whether every field has its length: the library accepts a shorter one, and one with a sign.
fn is_well_formed(parent: &str) -> bool {
    let mut fields = parent.split('-');
    let lengths = [2, 32, 16, 2];
    lengths.iter().all(|length| {
        let is_hex = |field: &str| field.bytes().all(|byte| byte.is_ascii_hexdigit());
        fields
            .next()
            .is_some_and(|field| field.len() == *length && is_hex(field))
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use opentelemetry::trace::TraceContextExt;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(headers: &[(&'static str, &str)]) -> Option<(String, String)> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                (HeaderName::from_static(name), value)
            })
            .collect();
        let context = context(&headers);
        let span = context.span().span_context().clone();
        span.is_valid()
            .then(|| (span.trace_id().to_string(), span.trace_state().header()))
    }

    #[test]
    fn the_trace_of_the_caller_is_continued() {
        let id = "0af7651916cd43dd8448eb211c80319c".to_owned();
        assert_eq!(read(&[(TRACEPARENT, PARENT)]), Some((id.clone(), String::new())));
        let states = [(TRACEPARENT, PARENT), (TRACESTATE, "a=1"), (TRACESTATE, "b=2")];
        assert_eq!(read(&states), Some((id.clone(), "a=1,b=2".to_owned())));
        // A later version may have more fields.
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert_eq!(read(&[(TRACEPARENT, later)]), Some((id.clone(), String::new())));
        for state in [
            "novalue",
            "Upper=1",
            "\u{e9}=1",
            &format!("a={}", "1".repeat(600)),
        ] {
            let headers = [(TRACEPARENT, PARENT), (TRACESTATE, state)];
            assert_eq!(read(&headers), Some((id.clone(), String::new())), "{state}");
        }
    }

    #[test]
    fn a_malformed_parent_is_ignored() {
        for parent in [
            "",
            "-",
            "00",
            "\u{e9}",
            "00-1-1-01",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        ] {
            assert_eq!(read(&[(TRACEPARENT, parent)]), None, "{parent}");
        }
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]), None);
    }
}
