//! A Flocker whose state repeatedly leaves out datasets that exist.

use std::fs;

use flocker_embedded::faults::Flicker;

use super::{LONG, Pair, attach, delete, detach};
use crate::support::csi::Csi;
use crate::support::machine::Machine;
use crate::support::mounts::{Mounts, only_mount_at};
use crate::support::namespace::in_own_namespace;

/// Uses a volume on a node, unstages it, and returns the previous content of its file.
async fn use_on(machine: &Machine, csi: &Csi, volume: uuid::Uuid) -> Option<String> {
    let node = machine.node();
    let context = attach(csi, volume, node, LONG).await.unwrap();
    let usage = machine.usage("data", volume, &context);
    csi.stage(&usage).await.unwrap();
    csi.publish(&usage).await.unwrap();
    only_mount_at(&usage.target);
    let stats = csi.stats(&usage).await.unwrap();
    assert!(!stats.volume_condition.unwrap().abnormal);
    let file = usage.target.join("file");
    let before = fs::read_to_string(&file).ok();
    fs::write(&file, node.to_string()).unwrap();
    csi.unpublish(&usage).await.unwrap();
    csi.unstage(&usage).await.unwrap();
    detach(csi, volume, &node.to_string()).await.unwrap();
    before
}

#[test]
fn a_state_that_flickers_keeps_no_volume_from_being_made_moved_used_and_destroyed() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (one, two) = (&pair.one.csi, &pair.two.csi);
        for flicker in [Flicker::Unsettled, Flicker::All] {
            pair.faults().change(|plan| plan.flicker = flicker);
            let volume = one.create(&format!("{flicker:?}")).await;
            let mut last = None;
            for (machine, csi) in [(&pair.first, one), (&pair.second, two), (&pair.first, one)] {
                assert_eq!(use_on(machine, csi, volume).await, last);
                last = Some(machine.node().to_string());
            }
            assert_eq!(
                Mounts::read().below(&pair.second.config.node.mount_root),
                [],
                "the other node has released it"
            );
            delete(one, volume, LONG).await.unwrap();
            pair.file_goes().await;
        }
    });
}
