//! The plan that applies, and how often each rule has had its effect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use super::node_faults::{ControlFault, NodeFault};
use super::plan::{FaultPlan, Flicker};
use super::request_faults::{Effect, RequestFault};

/// The handle that injects faults while Flocker runs; clones control the same Flocker.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<watch::Sender<FaultState>>,
    /// The number of answers that `flicker` applied to.
    flickers: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct FaultState {
    plan: FaultPlan,
    /// The counts of each rule of the plan, by its name.
    rules: BTreeMap<String, RuleCounts>,
    /// The number of rules that have existed.
    rules_so_far: u64,
    /// The fault of each node that has taken effect.
    nodes: BTreeMap<usize, NodeFault>,
    /// The fault of the control service that has taken effect.
    control: ControlFault,
}

#[derive(Clone, Copy, Debug, Default)]
struct RuleCounts {
    /// Distinguishes the rule from earlier ones of the same name.
    id: u64,
    /// Requests that match its method, route and text.
    seen: u64,
    /// Requests that it has had its effect on.
    met: u64,
}

/// A rule that applies to a request.
#[derive(Debug)]
pub(super) struct MatchedRule {
    pub(super) name: String,
    pub(super) effect: Effect,
    id: u64,
}

impl FaultState {
    fn is_applied(&self) -> bool {
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
            self.rules_so_far += 1;
            let new = RuleCounts {
                id: self.rules_so_far,
                ..RuleCounts::default()
            };
            self.rules.insert(rule.name.clone(), kept.copied().unwrap_or(new));
        }
        self.plan = plan;
    }
}

impl Faults {
    pub(crate) fn new(plan: FaultPlan, nodes: usize) -> Self {
        let mut state = FaultState {
            nodes: (1..=nodes).map(|number| (number, NodeFault::default())).collect(),
            ..FaultState::default()
        };
        state.replace(plan);
        Self {
            state: Arc::new(watch::Sender::new(state)),
            flickers: Arc::default(),
        }
    }

    /// Returns the current plan.
    pub fn plan(&self) -> FaultPlan {
        self.state.borrow().plan.clone()
    }

    /// Replaces the plan.
    pub fn set(&self, plan: FaultPlan) {
        self.change(|current| *current = plan);
    }

    /// Changes the plan.
    pub fn change(&self, change: impl FnOnce(&mut FaultPlan)) {
        self.state.send_modify(|state| {
            let mut plan = state.plan.clone();
            change(&mut plan);
            if let Err(mistake) = plan.check(state.nodes.len()) {
                tracing::error!("A part of the plan of faults has no effect: {mistake}");
            }
            state.replace(plan);
        });
    }

    /// Adds a rule for requests, before all existing rules.
    pub fn add(&self, rule: RequestFault) {
        self.change(|plan| plan.requests.insert(0, rule));
    }

    /// Removes the rule for requests of this name; the requests it held continue.
    pub fn remove(&self, name: &str) {
        self.change(|plan| plan.requests.retain(|rule| rule.name != name));
    }

    /// Waits until the faults of nodes and control service have taken effect: what is to stop has stopped, what is to
    /// start has started, but agents may not have reported yet.
    pub async fn until_in_force(&self) {
        self.state.subscribe().wait_for(FaultState::is_applied).await.ok();
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.set(FaultPlan::default());
    }

    /// Returns the number of requests a rule has had its effect on, as long as the rule exists. A request that it
    /// holds counts as soon as it is held; a reply that it holds or loses therefore means that the request has been
    /// carried out.
    pub fn met(&self, name: &str) -> u64 {
        self.state.borrow().rules.get(name).map_or(0, |rule| rule.met)
    }

    /// Waits until a rule has had its effect on that many requests.
    pub async fn until_met(&self, name: &str, times: u64) {
        let met = |state: &FaultState| state.rules.get(name).is_some_and(|rule| rule.met >= times);
        // The sender is this handle's own, so it exists.
        self.state.subscribe().wait_for(met).await.ok();
    }

    /// Waits until the plan fulfils a condition.
    pub(crate) async fn until(&self, condition: impl Fn(&FaultPlan) -> bool) {
        self.state
            .subscribe()
            .wait_for(|state| condition(&state.plan))
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

    /// Records that the fault of a node has taken effect.
    pub(crate) fn node_is(&self, number: usize, fault: NodeFault) {
        self.state.send_if_modified(|state| {
            let before = state.nodes.insert(number, fault.clone());
            before != Some(fault)
        });
    }

    /// Records that the fault of the control service has taken effect.
    pub(crate) fn control_is(&self, fault: ControlFault) {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.control, fault) != fault);
    }

    /// Returns whether rules for requests exist. Usually none do.
    pub(super) fn has_rules(&self) -> bool {
        !self.state.borrow().plan.requests.is_empty()
    }

    /// Returns the rule that decides about a request, if any, and counts the request for it.
    pub(super) fn match_rule(&self, applies: impl Fn(&RequestFault) -> bool) -> Option<MatchedRule> {
        let mut found = None;
        // No task waits for this count, so none is notified.
        self.state.send_if_modified(|state| {
            let FaultState { plan, rules, .. } = state;
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
                    (begun && !ended).then(|| MatchedRule {
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
    pub(super) fn count(&self, matched: &MatchedRule) {
        self.state.send_if_modified(|state| {
            let rule = state
                .rules
                .get_mut(&matched.name)
                .filter(|rule| rule.id == matched.id);
            rule.map(|rule| rule.met += 1).is_some()
        });
    }

    /// Waits until a rule that applies to a request has been removed.
    pub(super) async fn until_removed(&self, matched: &MatchedRule) {
        let removed = |state: &FaultState| {
            let rule = state.rules.get(&matched.name);
            rule.is_none_or(|rule| rule.id != matched.id)
        };
        self.state.subscribe().wait_for(removed).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(faults: &Faults, requests: usize) -> Vec<Option<Effect>> {
        (0..requests)
            .map(|_| {
                let matched = faults.match_rule(|_| true)?;
                faults.count(&matched);
                Some(matched.effect)
            })
            .collect()
    }

    #[test]
    fn a_rule_applies_after_its_number_of_requests_and_as_often_as_it_allows() {
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
    async fn a_rule_counts_as_removed_also_when_another_one_has_its_name() {
        let faults = Faults::new(FaultPlan::default(), 1);
        faults.add(RequestFault::new("held", Effect::HoldReply));
        let matched = faults.match_rule(|_| true).unwrap();
        faults.remove("held");
        faults.add(RequestFault::new("held", Effect::HoldReply));
        faults.until_removed(&matched).await;
        faults.count(&matched);
        assert_eq!(faults.met("held"), 0, "the effect was that of the earlier rule");
    }
}
