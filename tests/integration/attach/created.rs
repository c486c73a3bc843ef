//! Volumes that are attached for the first time, by the plugin that has created them, and that other clients change between.
//!
//! Such an attachment reads nothing before it acquires the lease.

use tonic::Code;

use super::{DATASETS, LEASES, LONG, Pair, attach};
use crate::node::assert_refused;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_new_volume_is_attached_without_a_read_before_its_lease() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (csi, node) = (&pair.one.csi, pair.first.node());
        let volume = csi.create("data").await;
        let reads = || (pair.asked("GET", DATASETS), pair.asked("GET", LEASES));
        let before = reads();
        attach(csi, volume, node, LONG).await.unwrap();
        let after = reads();
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (1, 1),
            "the last read only"
        );
        attach(csi, volume, node, LONG).await.unwrap();
        assert_eq!(
            (reads().0 - after.0, reads().1 - after.1),
            (2, 2),
            "the first and the last"
        );
    });
}

#[test]
fn a_new_volume_that_another_client_leases_is_refused_and_keeps_that_lease() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let (first, second) = (pair.first.node(), pair.second.node());
        let volume = pair.one.csi.create("data").await;
        let client = pair.flocker.client().await;
        client.acquire_lease(volume, second, None).await.unwrap();
        let primary = pair.configured(volume).await.primary;
        assert_refused(
            attach(&pair.one.csi, volume, first, LONG).await,
            Code::FailedPrecondition,
            &[&volume.to_string(), &second.to_string()],
        );
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
        assert_eq!(pair.configured(volume).await.primary, primary, "not moved");
    });
}

#[test]
fn a_new_volume_that_another_client_moves_is_moved_back() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let volume = pair.one.csi.create("data").await;
        let client = pair.flocker.client().await;
        for (number, other) in [(1, pair.second.node()), (2, pair.first.node())] {
            let volume = if number == 1 {
                volume
            } else {
                pair.one.csi.create("other").await
            };
            let node = pair.flocker.node(number);
            client.move_dataset(volume, other).await.unwrap();
            attach(&pair.one.csi, volume, node, LONG).await.unwrap();
            assert_eq!(pair.configured(volume).await.primary, node);
            assert_eq!(pair.flocker.leaseholder(volume).await, Some(node));
        }
    });
}

#[test]
fn a_new_volume_that_another_client_deletes_is_not_found_and_leaves_no_lease() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let client = pair.flocker.client().await;
        for number in [1, 2] {
            let volume = pair.one.csi.create(&format!("data-{number}")).await;
            client.delete_dataset(volume).await.unwrap();
            assert_refused(
                attach(&pair.one.csi, volume, pair.flocker.node(number), LONG).await,
                Code::NotFound,
                &[&volume.to_string()],
            );
            assert_eq!(pair.flocker.leaseholder(volume).await, None);
        }
    });
}
