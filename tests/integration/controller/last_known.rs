//! The part of the list that a plugin of one node keeps for the time that Flocker is down.

use csi_proto::v1::{ListVolumesResponse, Volume};
use flocker_csi::flocker::provisioning::{ProvisionWait, ProvisioningSettings};
use flocker_embedded::faults::{Effect, RequestFault};

use super::{controller_keeping, create, delete, list, only, settings, wanted};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

/// Returns the settings of a plugin of one node that does not wait for the backing of its volumes.
fn of_node(flocker: &Flocker, number: usize) -> ProvisioningSettings {
    ProvisioningSettings {
        scope: only(flocker.node(number)),
        provision_wait: ProvisionWait::Declared,
        ..settings()
    }
}

fn volumes(page: ListVolumesResponse) -> Vec<Volume> {
    let entries = page.entries.into_iter();
    entries.map(|entry| entry.volume.unwrap()).collect()
}

fn hold(name: &str, method: &str, route: &str) -> RequestFault {
    RequestFault::new(name, Effect::HoldRequest)
        .on(method, route)
        .once()
}

#[test]
fn a_volume_that_was_made_while_the_list_was_read_is_in_the_list_that_is_kept() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller_keeping(flocker.cluster(), of_node(&flocker, 1), None);
        let faults = flocker.embedded().faults().clone();
        faults.add(hold("made", "POST", "/v1/configuration/datasets"));
        let making = controller.clone();
        let made = tokio::spawn(async move { create(&making, wanted("data", 64)).await });
        faults.until_met("made", 1).await;
        // By then the datasets are read, but not the nodes.
        faults.add(hold("listed", "GET", "/v1/state/nodes"));
        let listing = controller.clone();
        let listed = tokio::spawn(async move { list(&listing, 0, "").await });
        faults.until_met("listed", 1).await;
        faults.remove("made");
        let volume = made.await.unwrap().unwrap();
        faults.remove("listed");
        assert_eq!(volumes(listed.await.unwrap().unwrap()), [], "as Flocker had it");
        flocker.stop().await;
        let listed = volumes(list(&controller, 0, "").await.unwrap());
        assert_eq!(listed, [volume]);
    });
}

#[test]
fn a_created_volume_is_listed_even_if_the_last_known_list_is_another_nodes() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let directory = tempfile::tempdir().unwrap();
        let keeping = |number: usize| {
            controller_keeping(
                flocker.cluster(),
                of_node(&flocker, number),
                Some(directory.path()),
            )
        };
        let other = keeping(2);
        let others = create(&other, wanted("others", 64)).await.unwrap();
        assert_eq!(
            volumes(list(&other, 0, "").await.unwrap()),
            std::slice::from_ref(&others)
        );
        eventually("the list is kept", async || {
            directory.path().join("volumes.json").exists().then_some(())
        })
        .await;
        // The machine is now another node, like a clone of the first one's image.
        let mine = keeping(1);
        let volume = create(&mine, wanted("mine", 64)).await.unwrap();
        delete(&mine, &others.volume_id).await.unwrap();
        flocker.stop().await;
        assert_eq!(volumes(list(&mine, 0, "").await.unwrap()), [volume]);
    });
}
