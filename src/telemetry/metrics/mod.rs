//! What the plugin measures about its work, in the text format of `OpenMetrics`.
//!
//! An event is recorded where it happens: a call that ends, a phase that is left, a request to Flocker. What can be seen
//! at any time, such as how much is running, is looked up on request, by a [`Collector`]. No label takes
//! a value that a caller chooses, so the number of series is bounded.

mod labels;
mod series;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter as Counted};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::counters::{Counter, Counters};
use super::traces::Traces;
use labels::{Call, Mounting, Read, Request, Step};

pub(crate) use series::{Labels, Series, count, number};

/// What the names of all metrics begin with.
const PREFIX: &str = "flocker_csi";

/// The upper ends of the ranges, in seconds: from a call that only the kernel answers to one that waits for the longest
/// deadline.
const SECONDS: [f64; 12] = [
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 20.0, 30.0, 60.0,
];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// A set of histograms, one for each combination of labels.
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

/// The measurements of one plugin. Clones measure together.
#[derive(Clone, Debug)]
pub struct Metrics {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    counters: Counters,
    calls: Durations<Call>,
    steps: Durations<Step>,
    requests: Durations<Request>,
    mounts: Family<Mounting, Counted>,
    reads: Family<Read, Counted>,
    registry: Registry,
    traces: OnceLock<Traces>,
}

impl Default for Metrics {
    fn default() -> Self {
        let counters = Counters::default();
        let calls = Durations::new_with_constructor(seconds as fn() -> Histogram);
        let steps = Durations::new_with_constructor(seconds as fn() -> Histogram);
        let requests = Durations::new_with_constructor(seconds as fn() -> Histogram);
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_with_unit(
            "rpc_duration",
            "How long calls of CSI took, by how they ended",
            Unit::Seconds,
            calls.clone(),
        );
        registry.register_with_unit(
            "phase_duration",
            "How long operations were in each phase, counted when they left it",
            Unit::Seconds,
            steps.clone(),
        );
        registry.register_with_unit(
            "flocker_request_duration",
            "How long requests to Flocker took, by how they ended",
            Unit::Seconds,
            requests.clone(),
        );
        let mounts = Family::<Mounting, Counted>::default();
        registry.register(
            "mounts",
            "Mounts that were made or removed here, by what for and with what outcome",
            mounts.clone(),
        );
        let reads = Family::<Read, Counted>::default();
        registry.register(
            "flocker_reads",
            "Reads of Flocker's lists, each of which answers every call that waited for it",
            reads.clone(),
        );
        registry.register_collector(Box::new(counters.clone()));
        Self {
            shared: Arc::new(Shared {
                counters,
                calls,
                steps,
                requests,
                mounts,
                reads,
                registry,
                traces: OnceLock::new(),
            }),
        }
    }
}

impl Metrics {
    /// Returns the counters, which are metrics too.
    pub fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// Makes spans too of what is measured from now on.
    pub(crate) fn trace_with(&self, traces: Traces) {
        self.shared.traces.get_or_init(|| traces);
    }

    /// Returns what makes spans, if anything does.
    pub(crate) fn traces(&self) -> Option<&Traces> {
        self.shared.traces.get()
    }

    /// Records the end of a gRPC call, by the path of its method and the name of its code.
    pub(crate) fn call_ended(&self, path: &str, code: &'static str, took: Duration) {
        let call = Call::new(path, code);
        self.shared.calls.get_or_create(&call).observe(took.as_secs_f64());
    }

    /// Records that an operation left a phase after this time.
    pub(crate) fn phase_left(&self, operation: &'static str, phase: &'static str, took: Duration) {
        let step = Step { operation, phase };
        self.shared.steps.get_or_create(&step).observe(took.as_secs_f64());
    }

    /// Records the end of a request to Flocker.
    pub(crate) fn request_ended(&self, endpoint: &'static str, outcome: &'static str, took: Duration) {
        let request = Request { endpoint, outcome };
        self.shared
            .requests
            .get_or_create(&request)
            .observe(took.as_secs_f64());
    }

    /// Records the outcome of a mount that an operation made or removed.
    pub(crate) fn mounted(&self, operation: &'static str, outcome: &'static str) {
        let mounting = Mounting { operation, outcome };
        self.shared.mounts.get_or_create(&mounting).inc();
    }

    /// Records the end of a read of Flocker's lists.
    pub(crate) fn read_ended(&self, answered: bool) {
        let outcome = if answered { "done" } else { "failed" };
        self.shared.reads.get_or_create(&Read { outcome }).inc();
    }

    /// Returns all metrics as text, with those that are looked up now.
    ///
    /// The latter are not registered: their collector may own what measures here, and would never be dropped.
    pub fn to_text(&self, looked_up: impl IntoIterator<Item = LookedUp>) -> String {
        encoded(Some(&self.shared.registry), looked_up)
    }
}

/// Metrics that are looked up on request.
pub struct LookedUp(Registry);

impl LookedUp {
    /// Looks up metrics of the plugin.
    pub fn of_plugin(collector: Box<dyn Collector>) -> Self {
        Self::of(PREFIX, collector)
    }

    /// Looks up metrics whose names begin with `prefix`.
    pub(crate) fn of(prefix: &str, collector: Box<dyn Collector>) -> Self {
        let mut registry = Registry::with_prefix(prefix);
        registry.register_collector(collector);
        Self(registry)
    }

    /// Returns these metrics alone as text.
    pub(crate) fn into_text(self) -> String {
        encoded(None, [self])
    }
}

fn encoded(registry: Option<&Registry>, looked_up: impl IntoIterator<Item = LookedUp>) -> String {
    let mut encoded = String::new();
    let mut written = registry.map_or(Ok(()), |registry| text::encode_registry(&mut encoded, registry));
    for LookedUp(present) in looked_up {
        written = written.and_then(|()| text::encode_registry(&mut encoded, &present));
    }
    let written = written.and_then(|()| text::encode_eof(&mut encoded));
    if let Err(error) = written {
        tracing::warn!(%error, "The metrics cannot be written");
    }
    encoded
}

impl Collector for Counters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for counter in Counter::ALL {
            let value = ConstCounter::new(self.get(*counter));
            let metric =
                encoder.encode_descriptor(counter.name(), counter.help(), None, MetricType::Counter)?;
            value.encode(metric)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_is_in_the_text() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(250);
        metrics.call_ended("/csi.v1.Node/NodeStageVolume", "OK", took);
        metrics.call_ended("/a.b.C/Invented", "UNIMPLEMENTED", took);
        metrics.phase_left("stage", "mounted_here", took);
        metrics.request_ended("GET /v1/state/datasets", "answered", took);
        metrics.counters().count(Counter::LeasesTakenOver);
        let text = metrics.to_text([]);
        for line in [
            "# TYPE flocker_csi_rpc_duration_seconds histogram",
            r#"flocker_csi_rpc_duration_seconds_bucket{le="0.3",service="Node",method="NodeStageVolume",code="OK",csi_version="1"} 1"#,
            r#"flocker_csi_rpc_duration_seconds_count{service="other",method="other",code="UNIMPLEMENTED",csi_version="none"} 1"#,
            r#"flocker_csi_phase_duration_seconds_sum{operation="stage",phase="mounted_here"} 0.25"#,
            r#"flocker_csi_flocker_request_duration_seconds_count{endpoint="GET /v1/state/datasets",outcome="answered"} 1"#,
            "flocker_csi_leases_taken_over_total 1",
            "flocker_csi_leases_put_back_total 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("Invented"), "{text}");
    }
}
