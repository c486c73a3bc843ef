//! Callers that insist while Flocker is down. Their memory is returned when they have been answered.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::memory::Watched;
use crate::support::csi::{to_create, within};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const CALLS: usize = 5000;

#[test]
fn five_thousand_creations_while_flocker_is_stopped_leave_nothing_behind() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        plugin.csi.create("before").await;
        flocker.stop().await;
        let memory = Watched::begin(plugin.id());
        let mut calls = JoinSet::new();
        for number in 0..CALLS {
            let csi = plugin.csi.clone();
            calls.spawn(async move {
                let request = within(Duration::from_secs(8), to_create(&format!("volume-{number}")));
                csi.try_create(request).await
            });
        }
        while let Some(created) = calls.join_next().await {
            created.unwrap().unwrap_err();
        }
        memory.assert_peak(100);
        memory.returns().await;
        plugin.terminate().await;
    });
}
