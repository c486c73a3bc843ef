//! What must hold at any time, after any calls.

use std::collections::BTreeSet;

use super::calls::{Access, NODES, TARGETS};
use super::case::Volume;
use super::fixture::{Fixture, dataset_id};
use super::scenarios::{Dataset, Life};
use super::seen::{OurMount, Seen};

/// A violated rule.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    /// The rule, and the observed state.
    pub(super) text: String,
    /// Whether it may be temporary: a slow Flocker releases a lease after the answer.
    pub(super) may_pass: bool,
}

impl Broken {
    fn rule(rule: &str, seen: impl AsRef<str>) -> Self {
        Self {
            text: format!("broken: {rule}: {}", seen.as_ref()),
            may_pass: false,
        }
    }
}

pub(super) const ONE_DATASET: &str = "one dataset per name, as it was asked for";
const ONE_NODE: &str = "at most one node has a mount of a volume";
const LEASE: &str = "no attachment and no mount without a lease";
const NO_LEASE: &str = "no lease without a publish";
const PIN: &str = "no mount without a pin";
const AGENT: &str = "Flocker's agent sees its mount, so that the lease protects it";
const MOUNTS: &str = "what is mounted is what was asked for";

/// Checks the observed state of a volume.
pub(super) fn check(fixture: &Fixture, seen: &Seen, volume: &Volume) -> Vec<Broken> {
    let mut broken = Vec::new();
    broken.extend(check_name(seen, volume));
    broken.extend(check_agent(seen, volume));
    for generation in 0..=volume.generations() {
        let view = View {
            fixture,
            seen,
            volume,
            generation,
            possible: volume.possible(generation),
        };
        broken.extend(view.check_life());
        broken.extend(view.check_lease());
        broken.extend(view.check_nodes());
        broken.extend(view.check_pins());
        broken.extend((0..NODES).filter_map(|node| view.check_mounts(node)));
    }
    broken
}

fn check_name(seen: &Seen, volume: &Volume) -> Option<Broken> {
    let live = seen.configured.iter();
    let live: Vec<_> = live
        .filter(|dataset| dataset.name.as_ref() == Some(&volume.name) && !dataset.deleted)
        .collect();
    (live.len() > 1).then(|| Broken::rule(ONE_DATASET, format!("{} has {live:?}", volume.name)))
}

/// The observed state of a dataset, beside its possible states.
struct View<'a> {
    fixture: &'a Fixture,
    seen: &'a Seen,
    volume: &'a Volume,
    generation: usize,
    possible: BTreeSet<Dataset>,
}

impl View<'_> {
    fn id(&self) -> uuid::Uuid {
        dataset_id(&self.volume.name, self.generation)
    }

    fn describe(&self, seen: &str) -> String {
        let possible: Vec<_> = self.possible.iter().collect();
        format!(
            "{} ({}): {seen}; possible is {possible:?}",
            self.volume.name,
            self.id()
        )
    }

    fn check_life(&self) -> Option<Broken> {
        let found = self
            .seen
            .configured
            .iter()
            .find(|dataset| dataset.id == self.id());
        let as_seen = |life: Life| match (life, found) {
            (Life::Unmade, None) => true,
            (Life::Deleted, Some(found)) => found.deleted,
            (Life::Live(kind), Some(found)) => {
                !found.deleted && found.size == kind.size() && found.profile.as_deref() == kind.profile()
            }
            _ => false,
        };
        let possible = self.possible.iter().any(|dataset| as_seen(dataset.life));
        (!possible).then(|| Broken::rule(ONE_DATASET, self.describe(&format!("Flocker has {found:?}"))))
    }

    fn check_lease(&self) -> Option<Broken> {
        let held = self.seen.leases.get(&self.id());
        if self
            .possible
            .iter()
            .any(|dataset| dataset.lease.map(Some) == held.copied())
        {
            return None;
        }
        Some(match held {
            None => Broken::rule(LEASE, self.describe("no node has the lease")),
            Some(node) => Broken {
                may_pass: true,
                ..Broken::rule(NO_LEASE, self.describe(&format!("node {node:?} has the lease")))
            },
        })
    }

    fn ours(&self) -> impl Iterator<Item = &OurMount> {
        let id = self.id();
        self.seen.ours.iter().filter(move |ours| ours.dataset == Some(id))
    }

    fn check_nodes(&self) -> Option<Broken> {
        let nodes: BTreeSet<_> = self.ours().map(|ours| ours.node).collect();
        let description = || self.describe(&format!("mounted on {:?}", self.ours().collect::<Vec<_>>()));
        (nodes.len() > 1).then(|| Broken::rule(ONE_NODE, description()))
    }

    fn check_pins(&self) -> Option<Broken> {
        let unheld = self.ours().find(|ours| {
            let loose = self.possible.iter().any(|dataset| dataset.nodes[ours.node].loose);
            self.seen.is_pinned(ours.node, self.id()) == Some(false) && !loose
        });
        unheld.map(|ours| Broken {
            // The mount may be removed, and then the pin, between two reads.
            may_pass: true,
            ..Broken::rule(
                PIN,
                self.describe(&format!("the plugin does not hold what is under {ours:?}")),
            )
        })
    }

    fn check_mounts(&self, node: usize) -> Option<Broken> {
        let usage = |target| self.fixture.usage(node, self.id(), target);
        let at = |point: &std::path::Path| -> Vec<Access> {
            let here = self
                .ours()
                .filter(|ours| ours.node == node && ours.mount.point == point);
            here.map(OurMount::access).collect()
        };
        let alias = at(&usage(0).alias());
        let targets: [_; TARGETS] = std::array::from_fn(|target| at(&usage(target).target));
        let as_seen = |dataset: &Dataset| {
            let here = &dataset.nodes[node];
            let staged = if here.staged {
                &[Access::ReadWrite][..]
            } else {
                &[]
            };
            let published = targets.iter().zip(&here.targets);
            alias == staged
                && published
                    .into_iter()
                    .all(|(seen, asked)| seen == asked.as_slice())
        };
        let elsewhere = {
            let known = alias.len() + targets.iter().map(Vec::len).sum::<usize>();
            self.ours().filter(|ours| ours.node == node).count() > known
        };
        if !elsewhere && self.possible.iter().any(as_seen) {
            return None;
        }
        let mounts: Vec<_> = self.ours().filter(|ours| ours.node == node).collect();
        Some(Broken::rule(
            MOUNTS,
            self.describe(&format!("node {node} has {mounts:?}")),
        ))
    }
}

/// The agent assumes that the last mount with a device's name is the only one.
fn check_agent(seen: &Seen, volume: &Volume) -> Option<Broken> {
    let ids: Vec<_> = (0..=volume.generations())
        .map(|generation| dataset_id(&volume.name, generation))
        .collect();
    let hidden = seen
        .flockers
        .iter()
        .find(|flockers| ids.contains(&flockers.dataset) && flockers.believed != flockers.mount.point);
    hidden.map(|hidden| {
        let text = format!(
            "the agent of node {} expects its mount elsewhere: {hidden:?}",
            hidden.node
        );
        Broken::rule(AGENT, text)
    })
}

/// Mounts below the plugin's directories that come from no device node of the plugin.
pub(super) fn check_origins(seen: &Seen) -> Option<Broken> {
    let strange = seen.ours.iter().find(|ours| ours.dataset.is_none());
    strange.map(|strange| {
        Broken::rule(
            AGENT,
            format!("a mount does not come from a device node of the plugin: {strange:?}"),
        )
    })
}
