//! The possible states of one volume after the calls so far and their answers.
//!
//! An answer that leaves the outcome open leaves several scenarios possible; a later answer rules some of them out. The
//! rules follow from the promises of CSI and `docs/`, not from the plugin's code.

use std::collections::BTreeSet;

use tonic::Code;

use super::calls::{Access, Action, Flow, Kind, NODES, TARGETS};

/// The answer that a caller got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    /// The volume exists, in this generation.
    Made(usize),
    Refused(Code),
    /// The outcome is open: the caller must repeat the call.
    Open,
}

/// The state of the system around a volume during a call.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Around {
    /// The nodes on which no plugin holds Flocker's mounts.
    pub(super) unheld: [bool; NODES],
    /// The nodes that may not report to Flocker, so that they may be considered dead.
    pub(super) silent: [bool; NODES],
    /// Whether Flocker's state may leave out datasets that exist.
    pub(super) hazy: bool,
    /// Whether another call about the volume may contend with this one.
    pub(super) contending: bool,
}

/// One volume: a dataset for each generation of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scenario {
    pub(super) generations: Vec<Dataset>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    #[default]
    Unmade,
    Live(Kind),
    Deleted,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Dataset {
    pub(super) life: Life,
    pub(super) lease: Option<usize>,
    /// The node to which Flocker was asked to move it, if an attachment did so.
    home: Option<usize>,
    pub(super) nodes: [OnNode; NODES],
}

/// A volume on one node.
#[allow(
    clippy::struct_excessive_bools,
    reason = "they are independent: each combination is a scenario of its own"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OnNode {
    /// An attachment whose caller was asked to retry may still be running.
    attaching: bool,
    /// The same, of a staging that takes the lease.
    driving: bool,
    /// The staging that was begun here and has not been undone.
    begun: Option<Flow>,
    /// The machine lost its power after a staging took the lease: no caller will undo that, so the plugin does.
    returning: bool,
    pub(super) staged: bool,
    /// Flocker's own mount may have been removed while no plugin held it.
    pub(super) loose: bool,
    pub(super) targets: [Option<Access>; TARGETS],
}

/// A possible result of a call: an answer, and the state after it.
type Outcomes<T> = Vec<(Answer, T)>;

impl Scenario {
    /// Returns a dataset, created or not.
    pub(super) fn dataset(&self, generation: usize) -> Dataset {
        self.generations.get(generation).cloned().unwrap_or_default()
    }

    fn with(&self, generation: usize, dataset: Dataset) -> Self {
        let mut generations = self.generations.clone();
        if generations.len() <= generation {
            if dataset == Dataset::default() {
                return self.clone();
            }
            generations.resize_with(generation + 1, Dataset::default);
        }
        generations[generation] = dataset;
        Self { generations }
    }

    /// Returns the generation of a creation: the first that was not deleted.
    fn wanted(&self) -> usize {
        let gone = |dataset: &Dataset| dataset.life == Life::Deleted;
        self.generations
            .iter()
            .take_while(|dataset| gone(dataset))
            .count()
    }

    /// Returns the possible results of a call about a generation.
    pub(super) fn outcomes(&self, generation: usize, action: Action, around: Around) -> Outcomes<Self> {
        if let Action::Create { kind, .. } = action {
            return self.create(kind, around);
        }
        let outcomes = self.dataset(generation).outcomes(action, around);
        let outcomes = outcomes.into_iter();
        outcomes
            .map(|(answer, dataset)| (answer, self.with(generation, dataset)))
            .collect()
    }

    fn create(&self, kind: Kind, around: Around) -> Outcomes<Self> {
        let generation = self.wanted();
        let dataset = self.dataset(generation);
        match dataset.life {
            Life::Live(there) if there == kind => {
                let mut possible = vec![self.clone()];
                if dataset.home.is_some_and(|home| around.silent[home]) {
                    // A dataset without storage on that node moves to a node that can make it.
                    let given = dataset.with(|dataset| dataset.home = None);
                    possible.push(self.with(generation, given));
                }
                let answers = [Answer::Made(generation), Answer::Open];
                let each = |scenario: Self| answers.map(|answer| (answer, scenario.clone()));
                possible.into_iter().flat_map(each).collect()
            }
            Life::Live(_) => vec![
                (Answer::Refused(Code::AlreadyExists), self.clone()),
                (Answer::Open, self.clone()),
            ],
            Life::Unmade | Life::Deleted => {
                let made = dataset.with(|dataset| dataset.life = Life::Live(kind));
                let made = self.with(generation, made);
                vec![
                    (Answer::Made(generation), made.clone()),
                    (Answer::Open, made),
                    (Answer::Open, self.clone()),
                ]
            }
        }
    }

    /// Adds the states that the system may reach by itself.
    pub(super) fn drift(scenarios: &mut BTreeSet<Self>, around: Around) {
        let mut new: Vec<_> = scenarios.iter().cloned().collect();
        while let Some(scenario) = new.pop() {
            for (generation, dataset) in scenario.generations.iter().enumerate() {
                for drifted in dataset.drifts(around) {
                    let drifted = scenario.with(generation, drifted);
                    if scenarios.insert(drifted.clone()) {
                        new.push(drifted);
                    }
                }
            }
        }
    }

    /// Notes that a machine has lost its power, and all its mounts.
    pub(super) fn without_mounts_of(&self, node: usize) -> Self {
        let mut scenario = self.clone();
        for dataset in &mut scenario.generations {
            let here = &mut dataset.nodes[node];
            let returning = here.returning || here.begun == Some(Flow::Node);
            *here = OnNode {
                attaching: here.attaching,
                returning,
                ..OnNode::default()
            };
        }
        scenario
    }

    /// Notes that a plugin has ended, and with it all its operations.
    pub(super) fn without_plugin(&self, plugin: usize, is_controller: bool) -> Self {
        let mut scenario = self.clone();
        for dataset in &mut scenario.generations {
            dataset.nodes[plugin].driving = false;
            if is_controller {
                for node in &mut dataset.nodes {
                    node.attaching = false;
                }
            }
        }
        scenario
    }
}

impl Dataset {
    fn with(&self, change: impl FnOnce(&mut Self)) -> Self {
        let mut changed = self.clone();
        change(&mut changed);
        changed
    }

    fn here(&self, node: usize, change: impl FnOnce(&mut OnNode)) -> Self {
        self.with(|dataset| change(&mut dataset.nodes[node]))
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.life, Life::Live(_))
    }

    /// Returns the other nodes where a mount of the plugin keeps it.
    fn kept_elsewhere(&self, node: usize) -> impl Iterator<Item = usize> {
        (0..NODES).filter(move |other| *other != node && self.nodes[*other].staged)
    }

    /// Whether a call may wait for an event that does not happen by itself.
    pub(super) fn may_wait(&self, action: Action) -> bool {
        match action {
            Action::Attach { node } => self.kept_elsewhere(node).next().is_some(),
            Action::Stage { node, .. } => {
                self.nodes[node].loose
                    || self.kept_elsewhere(node).next().is_some()
                    || self.lease.is_some_and(|holder| holder != node)
            }
            // It is answered all the same, but only at the deadline.
            Action::Delete { .. } => self.nodes.iter().any(|node| node.staged),
            _ => false,
        }
    }

    fn outcomes(&self, action: Action, around: Around) -> Outcomes<Self> {
        let mut outcomes = match action {
            Action::Create { .. } => unreachable!("that is about a name"),
            Action::Delete { .. } => self.delete(around),
            Action::Attach { node } => self.attach(node, around),
            Action::Detach { node } => self.detach(node),
            Action::Stage { node, flow } => self.stage(node, flow, around),
            Action::Unstage { node } => self.unstage(node),
            Action::Publish { node, target, access } => self.publish(node, target, access),
            Action::Unpublish { node, target } => {
                let gone = self.here(node, |here| here.targets[target] = None);
                vec![(Answer::Done, gone.clone()), (Answer::Open, gone)]
            }
        };
        outcomes.push((Answer::Open, self.clone()));
        outcomes
    }

    /// Returns the node that has the lease, other than `node`, and keeps it: a dead node loses it.
    fn held_elsewhere(&self, node: usize, around: Around) -> Option<usize> {
        let holder = self.lease.filter(|holder| *holder != node);
        holder.filter(|holder| !around.silent[*holder])
    }

    fn delete(&self, around: Around) -> Outcomes<Self> {
        if !self.is_live() {
            return vec![(Answer::Done, self.clone())];
        }
        if self.lease.is_some() {
            return vec![(Answer::Refused(Code::FailedPrecondition), self.clone())];
        }
        let deleted = self.with(|dataset| dataset.life = Life::Deleted);
        let mut outcomes = vec![(Answer::Done, deleted.clone()), (Answer::Open, deleted)];
        if self.home.is_some_and(|home| around.silent[home]) {
            // Only a running node can destroy it, so it is moved to one of those first.
            outcomes.push((Answer::Open, self.with(|dataset| dataset.home = None)));
        }
        outcomes
    }

    fn attach(&self, node: usize, around: Around) -> Outcomes<Self> {
        let ended = self.here(node, |here| here.attaching = false);
        if !self.is_live() {
            return vec![(Answer::Refused(Code::NotFound), ended)];
        }
        let mut outcomes = Vec::new();
        if around.silent[node] {
            // A process that never saw it listed takes its id for a mistyped one.
            let released =
                ended.with(|dataset| dataset.lease = dataset.lease.filter(|holder| *holder != node));
            outcomes
                .extend([ended.clone(), released].map(|dataset| (Answer::Refused(Code::NotFound), dataset)));
        }
        if self.lease.is_some_and(|holder| holder != node) {
            outcomes.push((Answer::Refused(Code::FailedPrecondition), ended));
        }
        if self.held_elsewhere(node, around).is_some() {
            return outcomes;
        }
        let going_on = self.here(node, |here| here.attaching = true);
        let free = going_on.with(|dataset| dataset.lease = dataset.lease.filter(|holder| *holder == node));
        let leased = going_on.with(|dataset| dataset.lease = Some(node));
        let moved = leased.with(|dataset| dataset.home = Some(node));
        // A dataset that only a mount without Flocker's own keeps there is no longer reported from there, and a silent
        // node reports none.
        let reported = |other: usize| !self.nodes[other].loose && !around.silent[other];
        if around.hazy || !self.kept_elsewhere(node).any(reported) {
            outcomes.push((Answer::Done, moved.here(node, |here| here.attaching = false)));
        }
        outcomes.extend([going_on, free, leased, moved].map(|dataset| (Answer::Open, dataset)));
        outcomes
    }

    fn detach(&self, node: Option<usize>) -> Outcomes<Self> {
        let detached = self.with(|dataset| {
            if node.is_none() || dataset.lease == node {
                dataset.lease = None;
            }
            for (other, here) in dataset.nodes.iter_mut().enumerate() {
                here.attaching &= node.is_some_and(|node| node != other);
            }
        });
        vec![(Answer::Done, detached.clone()), (Answer::Open, detached)]
    }

    fn stage(&self, node: usize, flow: Flow, around: Around) -> Outcomes<Self> {
        let here = &self.nodes[node];
        if here.staged && !here.loose {
            return vec![(Answer::Done, self.here(node, |here| here.driving = false))];
        }
        let begun = self.here(node, |here| {
            here.begun = Some(flow);
            here.returning = false;
            here.driving = flow == Flow::Node;
        });
        let mut outcomes = vec![(Answer::Open, begun.clone())];
        let refused = |code| (Answer::Refused(code), begun.cleared(node));
        if !self.is_live() {
            outcomes.push(refused(Code::NotFound));
            return outcomes;
        }
        let may_be_refused = match flow {
            Flow::Controller => self.lease != Some(node) || self.home != Some(node),
            Flow::Node => self.lease.is_some_and(|holder| holder != node),
        };
        if may_be_refused || around.contending || here.loose {
            outcomes.push(refused(Code::FailedPrecondition));
        }
        if self.held_elsewhere(node, around).is_some()
            || (flow == Flow::Controller && self.lease != Some(node))
        {
            return outcomes;
        }
        let leased = begun.with(|dataset| dataset.lease = Some(node));
        let moved = leased.with(|dataset| dataset.home = Some(node));
        if flow == Flow::Node {
            let free = begun.with(|dataset| dataset.lease = dataset.lease.filter(|holder| *holder == node));
            outcomes.extend([free, leased, moved.clone()].map(|dataset| (Answer::Open, dataset)));
        }
        let home_may_be_here = flow == Flow::Node || self.home.is_none_or(|home| home == node);
        if home_may_be_here && self.kept_elsewhere(node).next().is_none() {
            let mounted = moved.here(node, |here| {
                here.staged = true;
                here.loose = false;
            });
            outcomes.push((Answer::Done, mounted.here(node, |here| here.driving = false)));
            outcomes.push((Answer::Open, mounted));
        }
        outcomes
    }

    /// Returns the state after a final refusal of a staging, and after an unstaging: nothing is left.
    fn cleared(&self, node: usize) -> Self {
        self.with(|dataset| {
            let here = &mut dataset.nodes[node];
            here.staged = false;
            here.loose = false;
            here.driving = false;
            if here.begun.take() == Some(Flow::Node) && dataset.lease == Some(node) {
                dataset.lease = None;
            }
        })
    }

    fn unstage(&self, node: usize) -> Outcomes<Self> {
        if self.nodes[node].targets.iter().any(Option::is_some) {
            let stopped = self.here(node, |here| here.driving = false);
            return vec![(Answer::Refused(Code::FailedPrecondition), stopped)];
        }
        let cleared = self.cleared(node);
        let unmounted = cleared.with(|dataset| {
            dataset.lease = self.lease;
            dataset.nodes[node].begun = self.nodes[node].begun;
        });
        let mut outcomes = vec![
            (Answer::Done, cleared.clone()),
            (Answer::Open, cleared.clone()),
            (Answer::Open, unmounted),
        ];
        let mut others = self.nodes.iter().enumerate();
        if others.any(|(other, there)| other != node && there.staged) {
            // These nodes share a machine, on which a mount of another plugin is one of the same node, which needs the lease.
            let kept = cleared.with(|dataset| dataset.lease = self.lease);
            outcomes.push((Answer::Done, kept));
        }
        outcomes
    }

    fn publish(&self, node: usize, target: usize, access: Access) -> Outcomes<Self> {
        let here = &self.nodes[node];
        let mut outcomes = Vec::new();
        // A plugin may have seen the lease with another node.
        let is_others = self.lease.is_some_and(|holder| holder != node);
        if !here.staged || here.loose || is_others {
            outcomes.push((Answer::Refused(Code::FailedPrecondition), self.clone()));
        }
        if here.staged {
            let published = self.here(node, |here| here.targets[target] = Some(access));
            match here.targets[target] {
                Some(other) if other != access => {
                    outcomes.push((Answer::Refused(Code::AlreadyExists), self.clone()));
                }
                _ => {
                    outcomes.push((Answer::Done, published.clone()));
                    outcomes.push((Answer::Open, published));
                }
            }
        }
        outcomes
    }

    fn drifts(&self, around: Around) -> Vec<Self> {
        let mut drifted = Vec::new();
        for (node, here) in self.nodes.iter().enumerate() {
            let at_work = (here.attaching || here.driving) && self.is_live();
            if at_work && self.held_elsewhere(node, around).is_none() && self.lease != Some(node) {
                drifted.push(self.with(|dataset| dataset.lease = None));
                drifted.push(self.with(|dataset| dataset.lease = Some(node)));
            }
            if at_work && self.lease == Some(node) && self.home != Some(node) {
                drifted.push(self.with(|dataset| dataset.home = Some(node)));
            }
            let protected = self.lease == Some(node) || (self.is_live() && self.home == Some(node));
            if here.returning && !around.unheld[node] {
                drifted.push(self.with(|dataset| {
                    dataset.nodes[node].returning = false;
                    dataset.lease = dataset.lease.filter(|holder| *holder != node);
                }));
            }
            if here.staged && !around.unheld[node] && self.lease != Some(node) {
                if here.targets.iter().all(Option::is_none) {
                    // Nothing uses it, and its lease is gone: the plugin lets it go.
                    drifted.push(self.here(node, |here| {
                        here.staged = false;
                        here.loose = false;
                        here.begun = None;
                    }));
                }
                if here.begun == Some(Flow::Node) && self.lease.is_none() && self.is_live() {
                    // No controller looks after the lease, so the node acquires it again.
                    drifted.push(self.with(|dataset| dataset.lease = Some(node)));
                }
            }
            if around.unheld[node] && here.staged && !here.loose && !protected {
                drifted.push(self.here(node, |here| here.loose = true));
            }
        }
        drifted
    }
}
