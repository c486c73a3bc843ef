//! A collector of traces that hangs. Calls do not wait for it, and what waits for it is bounded.

use std::net::TcpListener;

use csi_proto::v1::ControllerPublishVolumeRequest;
use futures::StreamExt;
use tonic::Code;

use crate::memory::Watched;
use crate::support::csi::{Csi, capability};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// Many times what waits for a collector.
const CALLS: usize = 20_000;

/// Calls that fail with the longest texts, in the trace of a caller that says much about it.
async fn fail(csi: &Csi, calls: usize) {
    let failing = futures::stream::iter(0..calls).map(|number| {
        let mut request = tonic::Request::new(ControllerPublishVolumeRequest {
            volume_id: "v".repeat(4000),
            node_id: "n".repeat(4000),
            volume_capability: Some(capability(
                csi_proto::v1::volume_capability::access_mode::Mode::SingleNodeWriter,
            )),
            ..Default::default()
        });
        let metadata = request.metadata_mut();
        let parent = format!("00-{:032x}-b7ad6b7169203331-01", number + 1);
        metadata.insert("traceparent", parent.parse().unwrap());
        let state = format!("vendor={}", "s".repeat(240));
        metadata.insert("tracestate", state.parse().unwrap());
        let mut controller = csi.controller();
        async move { controller.controller_publish_volume(request).await }
    });
    let mut answers = failing.buffer_unordered(50);
    while let Some(answer) = answers.next().await {
        assert_eq!(answer.unwrap_err().code(), Code::NotFound);
    }
}

#[test]
fn calls_while_the_collector_of_traces_hangs_are_answered_and_add_no_memory() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // The kernel accepts connections for it, and it answers none, as one that is stopped.
        let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("--otlp-endpoint=http://{}", hanging.local_addr().unwrap());
        let plugin = machine.process(&[&endpoint, "--log=error"]).await;
        let idle = Watched::begin(plugin.id());
        fail(&plugin.csi, CALLS / 10).await;
        let full = Watched::begin(plugin.id());
        fail(&plugin.csi, CALLS).await;
        full.returns().await;
        idle.assert_peak(24);
        plugin.terminate().await;
    });
}
