//! Mistakes in a plan that its types allow.

use std::collections::BTreeSet;

use axum::http::StatusCode;

use super::plan::FaultPlan;
use super::request_faults::{Effect, RequestFault};
use crate::routes::ROUTES;

impl FaultPlan {
    /// Fails with the first fault that could never have an effect, or not the intended one.
    pub(crate) fn check(&self, nodes: usize) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for rule in &self.requests {
            check_rule(rule)?;
            if !names.insert(&rule.name) {
                return Err(format!("two rules for requests have the name {:?}", rule.name));
            }
        }
        if let Some(number) = self.nodes.keys().find(|number| **number == 0 || **number > nodes) {
            return Err(format!(
                "node {number} does not exist; the nodes are numbered 1 to {nodes}"
            ));
        }
        let eras: Vec<_> = self.nodes.values().filter_map(|node| node.era).collect();
        if eras.iter().collect::<BTreeSet<_>>().len() < eras.len() {
            return Err("two nodes have the same era".to_owned());
        }
        Ok(())
    }
}

fn check_rule(rule: &RequestFault) -> Result<(), String> {
    let name = &rule.name;
    if let Some(route) = rule.route.as_deref().filter(|route| !ROUTES.contains(route)) {
        return Err(format!(
            "the rule {name:?} names the route {route}; the routes are {}",
            ROUTES.join(", ")
        ));
    }
    match rule.effect {
        Effect::Answer { status, .. } if StatusCode::from_u16(status).is_err() => Err(format!(
            "the rule {name:?} answers with {status}, which is not an HTTP status"
        )),
        _ => Ok(()),
    }
}
