//! The number of connections to Flocker that a process makes.

use futures::future::join_all;
use uuid::Uuid;

use flocker_embedded::Counters;
use flocker_embedded::faults::{Effect, RequestFault};

use super::{CONFIGURATION, without_storage};
use crate::support::csi::Csi;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// The most concurrent requests of a process: three writes, a set of lists, and one other read.
const AT_MOST: u64 = 5;
/// The most connections in any case: the HTTP library sometimes begins one in vain, while the last one is on its way back
/// to it.
const IN_ALL: u64 = 2 * AT_MOST;

/// Takes a volume through its whole life.
async fn whole_life(machine: &Machine, csi: &Csi, name: &str) {
    let volume = csi.create(name).await;
    let context = csi.attach(volume, machine.node()).await;
    let usage = machine.usage(name, volume, &context);
    csi.stage(&usage).await.unwrap();
    csi.publish(&usage).await.unwrap();
    csi.unpublish(&usage).await.unwrap();
    csi.unstage(&usage).await.unwrap();
    csi.detach(volume, machine.node()).await;
    csi.delete(volume).await.unwrap();
}

fn requests(counters: &Counters) -> u64 {
    counters.requests.values().sum()
}

#[test]
fn whole_lives_of_volumes_share_a_few_connections_which_are_kept() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let counters = || flocker.embedded().counters();
        for name in ["first", "second", "third"] {
            whole_life(&machine, &plugin.csi, name).await;
        }
        let alone = counters();
        assert!(alone.connections <= IN_ALL, "{alone:?}");

        let names: Vec<_> = (0..8).map(|number| format!("concurrent-{number}")).collect();
        join_all(names.iter().map(|name| whole_life(&machine, &plugin.csi, name))).await;
        let concurrent = counters();
        assert!(
            concurrent.connections <= IN_ALL && concurrent.most_requests <= AT_MOST,
            "{concurrent:?}"
        );
        assert!(requests(&concurrent) > requests(&alone) + 8 * 5, "{concurrent:?}");

        whole_life(&machine, &plugin.csi, "last").await;
        assert!(
            counters().connections <= IN_ALL,
            "they are used again: {:?}",
            counters()
        );
        plugin.stop().await;
    });
}

#[test]
fn callers_that_come_at_once_share_the_few_connections() {
    in_own_namespace(|| async {
        let flocker = without_storage().await;
        let plugin = declaring(&flocker).plugin().await;
        let before = flocker.embedded().counters().connections;
        let names: Vec<_> = (0..64).map(|number| format!("volume-{number}")).collect();
        join_all(names.iter().map(|name| plugin.csi.create(name))).await;
        let counters = flocker.embedded().counters();
        assert_eq!(counters.answered("POST", CONFIGURATION, 201), 64);
        assert!(counters.connections - before <= IN_ALL, "{counters:?}");
        assert!(counters.most_requests <= AT_MOST, "{counters:?}");
        plugin.stop().await;
    });
}

#[test]
fn hanging_requests_do_not_block_other_calls() {
    in_own_namespace(|| async {
        let flocker = without_storage().await;
        let plugin = declaring(&flocker).plugin().await;
        let faults = flocker.embedded().faults();
        let mut hold = RequestFault::new("hung", Effect::HoldReply).on("POST", CONFIGURATION);
        hold.containing = Some("hanging".to_owned());
        faults.add(hold);
        let hung = ["hanging-1", "hanging-2"].map(|name| {
            let csi = plugin.csi.clone();
            tokio::spawn(async move { csi.create(name).await })
        });
        faults.until_met("hung", 2).await;
        let names: Vec<_> = (0..20).map(|number| format!("volume-{number}")).collect();
        join_all(names.iter().map(|name| plugin.csi.create(name))).await;
        assert!(hung.iter().all(|hung| !hung.is_finished()));

        faults.remove("hung");
        let made: Vec<Uuid> = join_all(hung).await.into_iter().map(Result::unwrap).collect();
        assert_ne!(made[0], made[1]);
        plugin.stop().await;
    });
}

/// Returns a node whose plugin waits only until a volume is declared.
fn declaring(flocker: &Flocker) -> Machine {
    let mut machine = Machine::new(flocker, 1);
    machine.config.plugin.provision_wait = flocker_csi::flocker::provisioning::ProvisionWait::Declared;
    machine
}
