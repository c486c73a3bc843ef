//! The number of requests that Flocker gets during the life of a volume, at Flocker's own pace.
//!
//! Background reads are not counted: the only ones are those of the leases, at the start and then every 30 s while a volume
//! is staged. A life is measured between two of them.

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use flocker_embedded::Counters;
use tokio::time::Instant;
use uuid::Uuid;

use super::{CONFIGURATION, LEASES, NODES, STATE, at_flockers_own_pace};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::{Machine, Running};
use crate::support::namespace::in_own_namespace;

/// The most requests of a life whose volume is created where it is used.
const WITHOUT_A_MOVE: u64 = 20;
/// The most requests of a life whose volume is used on another node than the one it is created on.
const WITH_A_MOVE: u64 = 28;
/// The shortest time between the first background read and the next one.
const UNTIL_THE_NEXT_READ: Duration = Duration::from_secs(29);
/// The RPCs that wait for Flocker's agents: for how long at their own pace, what another read costs, and after how much more
/// time there is one. A machine under load is slower, and is read for longer.
const WAITING: [(&str, Duration, u64, Duration); 3] = [
    (
        "CreateVolume",
        Duration::from_secs(4),
        1,
        Duration::from_millis(1700),
    ),
    (
        "NodeStageVolume",
        Duration::from_secs(5),
        3,
        Duration::from_secs(10),
    ),
    (
        "DeleteVolume",
        Duration::from_secs(6),
        1,
        Duration::from_millis(1700),
    ),
];
/// How often a life is repeated whose background read may have been counted, on a machine under load.
const ATTEMPTS: usize = 3;

/// An RPC, how often it has read each list, its other requests, and its time.
struct Step {
    rpc: &'static str,
    lists: [u64; 4],
    writes: u64,
    took: Duration,
}

/// The requests of each RPC of a life.
#[derive(Default)]
struct Life {
    steps: Vec<Step>,
    until_usable: Duration,
}

impl Life {
    async fn step<T>(&mut self, flocker: &Flocker, rpc: &'static str, call: impl Future<Output = T>) -> T {
        let (before, began) = (flocker.embedded().counters(), Instant::now());
        let answer = call.await;
        let after = flocker.embedded().counters();
        let lists = super::reads_since(&before, &after);
        let all = all(&after) - all(&before);
        self.steps.push(Step {
            rpc,
            lists,
            writes: all - lists.iter().sum::<u64>(),
            took: began.elapsed(),
        });
        answer
    }

    fn total(&self) -> u64 {
        self.steps.iter().map(Step::all).sum()
    }

    /// Returns how many reads there may be more than at Flocker's own pace, because the agents were slower.
    fn extra(&self) -> u64 {
        let extra = |step: &Step| {
            let (_, usual, reads, every) = WAITING.iter().find(|(rpc, ..)| *rpc == step.rpc)?;
            let longer = step.took.checked_sub(*usual)?;
            Some(reads * u64::try_from(longer.as_millis().div_ceil(every.as_millis())).unwrap())
        };
        self.steps.iter().filter_map(extra).sum()
    }

    /// Returns the requests as a table of `docs/benchmarks.md`.
    fn table(&self) -> String {
        let mut text = format!(
            "usable after {:.2?}\n| RPC | {CONFIGURATION} | {STATE} | {NODES} | {LEASES} | writes | all | took |\n",
            self.until_usable
        );
        for step in &self.steps {
            let [configuration, state, nodes, leases] = step.lists;
            let Step {
                rpc, writes, took, ..
            } = step;
            let all = step.all();
            writeln!(
                text,
                "| {rpc} | {configuration} | {state} | {nodes} | {leases} | {writes} | {all} | {took:.2?} |"
            )
            .unwrap();
        }
        write!(text, "all: {}", self.total()).unwrap();
        text
    }
}

impl Step {
    fn all(&self) -> u64 {
        self.lists.iter().sum::<u64>() + self.writes
    }
}

fn all(counters: &Counters) -> u64 {
    counters.requests.values().sum()
}

/// Lets a volume be created, used on `user`'s node and deleted; `None` if a background read may have been counted.
async fn live(flocker: &Flocker, user: &Machine, name: &str) -> Option<Life> {
    let (began, plugin) = (Instant::now(), started(flocker, user).await);
    let (csi, node, mut life) = (&plugin.csi, user.node(), Life::default());
    let first_call = Instant::now();
    let volume: Uuid = life.step(flocker, "CreateVolume", csi.create(name)).await;
    let context = life
        .step(flocker, "ControllerPublishVolume", csi.attach(volume, node))
        .await;
    let usage: Usage = user.usage(name, volume, &context);
    life.step(flocker, "NodeStageVolume", csi.stage(&usage))
        .await
        .unwrap();
    life.step(flocker, "NodePublishVolume", csi.publish(&usage))
        .await
        .unwrap();
    life.until_usable = first_call.elapsed();
    std::fs::write(usage.target.join("data"), "used").unwrap();
    life.step(flocker, "NodeUnpublishVolume", csi.unpublish(&usage))
        .await
        .unwrap();
    life.step(flocker, "NodeUnstageVolume", csi.unstage(&usage))
        .await
        .unwrap();
    life.step(flocker, "ControllerUnpublishVolume", csi.detach(volume, node))
        .await;
    life.step(flocker, "DeleteVolume", csi.delete(volume))
        .await
        .unwrap();
    plugin.stop().await;
    (began.elapsed() < UNTIL_THE_NEXT_READ).then_some(life)
}

/// Starts a plugin whose first background read has ended.
async fn started(flocker: &Flocker, machine: &Machine) -> Running {
    let before = flocker.embedded().counters();
    let plugin = machine.plugin().await;
    eventually("the leases are read at the start", async || {
        (flocker.embedded().counters().answered("GET", LEASES, 200) > before.answered("GET", LEASES, 200))
            .then_some(())
    })
    .await;
    plugin
}

/// Creates volumes on the first node, because it has the lower UUID, and uses them on the node `choose` returns.
async fn count(limit: u64, choose: impl Fn(&[Uuid; 2]) -> Uuid) {
    let flocker = at_flockers_own_pace(|options| flocker_embedded::Options { nodes: 2, ..options }).await;
    let machines = [Machine::new(&flocker, 1), Machine::new(&flocker, 2)];
    let mut nodes = machines.each_ref().map(Machine::node);
    nodes.sort();
    let user = machines
        .iter()
        .find(|machine| machine.node() == choose(&nodes))
        .unwrap();
    for attempt in 0..ATTEMPTS {
        if let Some(life) = live(&flocker, user, &format!("data-{attempt}")).await {
            eprintln!("{}", life.table());
            // A move takes the second node longer, and the limit has room for that.
            let limit = limit.max(WITHOUT_A_MOVE + life.extra());
            assert!(life.total() <= limit, "more than {limit}: {}", life.table());
            return;
        }
    }
    panic!("no life of a volume ended within {UNTIL_THE_NEXT_READ:?} of the plugin's start");
}

#[test]
fn a_volume_used_where_it_is_created_costs_at_most_twenty_requests() {
    in_own_namespace(|| async { count(WITHOUT_A_MOVE, |[first, _]| *first).await });
}

#[test]
fn a_volume_used_on_another_node_costs_at_most_twenty_eight_requests() {
    in_own_namespace(|| async { count(WITH_A_MOVE, |[_, second]| *second).await });
}
