//! The plan that is in force, and how often its rules have been met.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::nodes::{ControlFault, NodeFault};
use super::plan::{FaultPlan, Flicker};
use super::rules::{Effect, RequestFault};

/// Switches what goes wrong, while Flocker runs; clones switch the same Flocker.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<watch::Sender<State>>,
    /// Answers that may have left something out.
    flickers: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct State {
    plan: FaultPlan,
    /// What became of each rule of the plan, by its name.
    rules: BTreeMap<String, Rule>,
    /// How many rules there have been.
    known: u64,
    /// What each node has been made to be.
    nodes: BTreeMap<usize, NodeFault>,
    /// What the control service has been made to be.
    control: ControlFault,
}

#[derive(Clone, Copy, Debug, Default)]
struct Rule {
    /// Tells the rule from others that have had its name.
    id: u64,
    /// Requests that it applies to by its method, route and text.
    seen: u64,
    /// Requests that it has had its effect on.
    met: u64,
}

/// A rule that a request has met.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) name: String,
    pub(super) effect: Effect,
    id: u64,
}

impl State {
    fn is_in_force(&self) -> bool {
        let plan = &self.plan;
        self.control == plan.control()
            && self
                .nodes
                .iter()
                .all(|(number, node)| *node == plan.node(*number))
    }

    fn replace(&mut self, plan: FaultPlan) {
        let before = std::mem::take(&mut self.rules);
        for rule in &plan.requests {
            let kept = before
                .get(&rule.name)
                .filter(|_| self.plan.requests.contains(rule));
            self.known += 1;
            let new = Rule {
                id: self.known,
                ..Rule::default()
            };
            self.rules.insert(rule.name.clone(), kept.copied().unwrap_or(new));
        }
        self.plan = plan;
    }
}

impl Faults {
    pub(crate) fn new(plan: FaultPlan, nodes: usize) -> Self {
        let mut state = State {
            nodes: (1..=nodes).map(|number| (number, NodeFault::default())).collect(),
            ..State::default()
        };
        state.replace(plan);
        Self {
            state: Arc::new(watch::Sender::new(state)),
            flickers: Arc::default(),
        }
    }

    /// Returns what is wrong at this moment.
    pub fn plan(&self) -> FaultPlan {
        self.state.borrow().plan.clone()
    }

    /// Replaces what is wrong.
    pub fn set(&self, plan: FaultPlan) {
        self.change(|current| *current = plan);
    }

    /// Changes what is wrong.
    pub fn change(&self, change: impl FnOnce(&mut FaultPlan)) {
        self.state.send_modify(|state| {
            let mut plan = state.plan.clone();
            change(&mut plan);
            if let Err(mistake) = plan.check(state.nodes.len()) {
                tracing::error!("Part of the plan of faults has no effect: {mistake}");
            }
            state.replace(plan);
        });
    }

    /// Adds a rule for requests, before all others.
    pub fn add(&self, rule: RequestFault) {
        self.change(|plan| plan.requests.insert(0, rule));
    }

    /// Removes the rule for requests of this name; what it held goes on.
    pub fn remove(&self, name: &str) {
        self.change(|plan| plan.requests.retain(|rule| rule.name != name));
    }

    /// Waits until nodes and control service are as the plan has them: what is to be stopped or off is, what is to
    /// start has started, though no agent need have reported yet.
    pub async fn until_in_force(&self) {
        self.state.subscribe().wait_for(State::is_in_force).await.ok();
    }

    /// Makes everything right again.
    pub fn clear(&self) {
        self.set(FaultPlan::default());
    }

    /// Returns how many requests a rule has had its effect on, as long as there is the rule. What it holds counts as
    /// soon as it is held; a reply that it holds or loses therefore means that the request has been carried out.
    pub fn met(&self, name: &str) -> u64 {
        self.state.borrow().rules.get(name).map_or(0, |rule| rule.met)
    }

    /// Waits until a rule has had its effect on that many requests.
    pub async fn until_met(&self, name: &str, times: u64) {
        let met = |state: &State| state.rules.get(name).is_some_and(|rule| rule.met >= times);
        // The sender is this handle's own, so it cannot be gone.
        self.state.subscribe().wait_for(met).await.ok();
    }

    /// Waits until the plan is such.
    pub(crate) async fn until(&self, is_such: impl Fn(&FaultPlan) -> bool) {
        self.state
            .subscribe()
            .wait_for(|state| is_such(&state.plan))
            .await
            .ok();
    }

    /// Reads the plan.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&FaultPlan) -> T) -> T {
        read(&self.state.borrow().plan)
    }

    pub(super) fn nodes(&self) -> usize {
        self.state.borrow().nodes.len()
    }

    /// Returns what the next answer of state leaves out.
    pub(crate) fn flicker(&self) -> Flicker {
        match self.read(|plan| plan.flicker) {
            Flicker::Off => Flicker::Off,
            _ if self.flickers.fetch_add(1, Ordering::Relaxed) % 2 == 1 => Flicker::Off,
            flicker => flicker,
        }
    }

    /// Takes note that a node is as the plan had it.
    pub(crate) fn node_is(&self, number: usize, fault: NodeFault) {
        self.state.send_if_modified(|state| {
            let before = state.nodes.insert(number, fault.clone());
            before != Some(fault)
        });
    }

    /// Takes note that the control service is as the plan had it.
    pub(crate) fn control_is(&self, fault: ControlFault) {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.control, fault) != fault);
    }

    /// Tells whether there are any rules for requests. Most of the time there are none.
    pub(super) fn has_rules(&self) -> bool {
        !self.state.borrow().plan.requests.is_empty()
    }

    /// Returns the rule that decides about a request, if any, and counts the request for it.
    pub(super) fn meet(&self, applies: impl Fn(&RequestFault) -> bool) -> Option<Met> {
        let mut found = None;
        // This is nothing that anybody waits for.
        self.state.send_if_modified(|state| {
            let State { plan, rules, .. } = state;
            found = plan
                .requests
                .iter()
                .filter(|rule| applies(rule))
                .find_map(|rule| {
                    let counts = rules.get_mut(&rule.name)?;
                    counts.seen += 1;
                    let begun = counts.seen > rule.after;
                    let ended = rule
                        .times
                        .is_some_and(|times| counts.seen > rule.after.saturating_add(times));
                    (begun && !ended).then(|| Met {
                        name: rule.name.clone(),
                        effect: rule.effect.clone(),
                        id: counts.id,
                    })
                });
            false
        });
        found
    }

    /// Counts that a rule has had its effect.
    pub(super) fn count(&self, met: &Met) {
        self.state.send_if_modified(|state| {
            let rule = state.rules.get_mut(&met.name).filter(|rule| rule.id == met.id);
            rule.map(|rule| rule.met += 1).is_some()
        });
    }

    /// Waits until a rule has gone that a request has met.
    pub(super) async fn until_removed(&self, met: &Met) {
        let gone = |state: &State| state.rules.get(&met.name).is_none_or(|rule| rule.id != met.id);
        self.state.subscribe().wait_for(gone).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(faults: &Faults, requests: usize) -> Vec<Option<Effect>> {
        (0..requests)
            .map(|_| {
                let met = faults.meet(|_| true)?;
                faults.count(&met);
                Some(met.effect)
            })
            .collect()
    }

    #[test]
    fn a_rule_applies_after_as_many_requests_and_as_often_as_it_says() {
        let faults = Faults::new(FaultPlan::default(), 1);
        assert_eq!(effects(&faults, 1), [None]);
        faults.add(RequestFault {
            after: 1,
            ..RequestFault::new("lost", Effect::LoseReply).once()
        });
        assert_eq!(effects(&faults, 3), [None, Some(Effect::LoseReply), None]);
        assert_eq!(faults.met("lost"), 1);
    }

    #[test]
    fn a_rule_that_stays_keeps_its_counts_and_a_new_one_starts() {
        let faults = Faults::new(FaultPlan::default(), 1);
        faults.add(RequestFault::new("lost", Effect::LoseRequest).once());
        assert_eq!(effects(&faults, 2), [Some(Effect::LoseRequest), None]);
        faults.change(|plan| {
            plan.requests
                .push(RequestFault::new("other", Effect::LoseReply).once());
        });
        assert_eq!(effects(&faults, 2), [Some(Effect::LoseReply), None]);
        faults.remove("lost");
        faults.add(RequestFault::new("lost", Effect::LoseRequest).once());
        assert_eq!(faults.met("lost"), 0);
        assert_eq!(effects(&faults, 1), [Some(Effect::LoseRequest)]);
    }

    #[tokio::test]
    async fn a_rule_has_gone_also_when_another_one_has_got_its_name() {
        let faults = Faults::new(FaultPlan::default(), 1);
        faults.add(RequestFault::new("held", Effect::HoldReply));
        let met = faults.meet(|_| true).unwrap();
        faults.remove("held");
        faults.add(RequestFault::new("held", Effect::HoldReply));
        faults.until_removed(&met).await;
        faults.count(&met);
        assert_eq!(faults.met("held"), 0, "the effect was that of the rule before");
    }
}
