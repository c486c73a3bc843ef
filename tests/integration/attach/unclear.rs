//! Leases of attachments that failed after they had requested them.

use tonic::Code;

use flocker_embedded::faults::Effect;

use super::{DATASET, LEASES, LONG, Pair, attach, detach};
use crate::node::assert_refused;
use crate::support::namespace::in_own_namespace;

#[test]
fn a_lease_of_an_interrupted_attachment_does_not_outlive_the_final_error_of_the_next_one() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let client = pair.flocker.client().await;
        let (csi, second) = (&pair.two.csi, pair.second.node());
        for lost in [LEASES, DATASET] {
            let volume = pair.volume(lost).await;
            pair.lose(&Effect::LoseReply, "POST", lost);
            assert_refused(attach(csi, volume, second, LONG).await, Code::Unavailable, &[]);
            pair.assert_lost_one();
            assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
            client.delete_dataset(volume).await.unwrap();
            assert_refused(attach(csi, volume, second, LONG).await, Code::NotFound, &[]);
            assert_eq!(
                pair.flocker.leaseholder(volume).await,
                None,
                "after the loss of {lost}"
            );
            pair.file_goes().await;
        }
    });
}

#[test]
fn a_lease_that_an_attachment_has_returned_outlives_the_final_error_of_a_later_one() {
    in_own_namespace(|| async {
        let pair = Pair::start().await;
        let client = pair.flocker.client().await;
        let (csi, second) = (&pair.two.csi, pair.second.node());
        let volume = pair.volume("data").await;
        pair.lose(&Effect::LoseReply, "POST", LEASES);
        assert_refused(attach(csi, volume, second, LONG).await, Code::Unavailable, &[]);
        pair.assert_lost_one();
        attach(csi, volume, second, LONG).await.unwrap();
        client.delete_dataset(volume).await.unwrap();
        assert_refused(attach(csi, volume, second, LONG).await, Code::NotFound, &[]);
        assert_eq!(pair.flocker.leaseholder(volume).await, Some(second));
        detach(csi, volume, &second.to_string()).await.unwrap();
        pair.file_goes().await;
    });
}
