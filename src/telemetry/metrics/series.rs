//! Writing metrics that are looked up on request.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

/// The labels of a series: names and values.
pub(crate) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// Writes the metrics of a [`Collector`](prometheus_client::collector::Collector).
pub(crate) struct Series<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl<'a> Series<'a> {
    /// Writes with this encoder.
    pub(crate) fn new(encoder: DescriptorEncoder<'a>) -> Self {
        Self { encoder }
    }

    /// Writes a metric that has one series, or none while its value is not known.
    pub(crate) fn one(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        self.many(name, help, value.map(|value| (Labels::new(), value)))
    }

    /// Writes a metric with a series for each set of labels.
    pub(crate) fn many<'l>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        self.gauge(name, help, None, series)
    }

    /// Writes a metric that is a time.
    pub(crate) fn seconds<'l>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'l>, Duration)>,
    ) -> fmt::Result {
        let series = series
            .into_iter()
            .map(|(labels, time)| (labels, time.as_secs_f64()));
        self.gauge(name, help, Some(&Unit::Seconds), series)
    }

    /// Writes a gauge with a unit, which its name ends in.
    pub(crate) fn gauge<'l>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        series: impl IntoIterator<Item = (Labels<'l>, f64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in series {
            if labels.is_empty() {
                family.encode_gauge(&value)?;
            } else {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    /// Writes a counter with a series for each set of labels. Its series end in `_total`.
    pub(crate) fn counter<'l>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'l>, u64)>,
    ) -> fmt::Result {
        let mut family = self
            .encoder
            .encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in series {
            ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Returns a number as the value of a gauge.
#[allow(clippy::cast_precision_loss, reason = "nothing here is counted up to 2^52")]
pub(crate) fn number(number: u64) -> f64 {
    number as f64
}

/// Returns a count as the value of a gauge.
pub(crate) fn count(count: usize) -> f64 {
    number(count as u64)
}
