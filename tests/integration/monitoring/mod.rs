//! What an operator sees of a running plugin.

mod log;
pub(crate) mod metrics;
mod start;
mod two_nodes;
mod volumes;

use std::net::{SocketAddr, TcpListener};

use crate::kubelet::probes::get;
use crate::support::eventually;

/// Returns an address for the metrics of a plugin in this process.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until series of `/metrics`, without what all names begin with, have these values.
pub(crate) async fn shows(at: SocketAddr, expected: &[(&str, f64)]) {
    eventually(&format!("/metrics shows {expected:?}"), async || {
        let (_, metrics) = get(at, "/metrics").await;
        let is_shown = |(series, wanted): &(&str, f64)| {
            metrics::value(&metrics, &format!("flocker_csi_{series}")) == Some(*wanted)
        };
        expected.iter().all(is_shown).then_some(())
    })
    .await;
}
