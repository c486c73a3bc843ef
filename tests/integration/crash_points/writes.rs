//! The changes that the plugin requests from Flocker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use flocker_embedded::faults::{Effect, Faults, RequestFault};
use tokio::task::JoinSet;

/// A request that changes something at Flocker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) name: &'static str,
    method: &'static str,
    route: &'static str,
}

pub(super) const CLAIM: Write = Write {
    name: "POST lease",
    method: "POST",
    route: "/v1/configuration/leases",
};
pub(super) const RELEASE: Write = Write {
    name: "DELETE lease",
    method: "DELETE",
    route: "/v1/configuration/leases/{dataset_id}",
};
pub(super) const MOVE: Write = Write {
    name: "POST primary",
    method: "POST",
    route: "/v1/configuration/datasets/{dataset_id}",
};

impl Write {
    fn rule(&self, name: String, effect: Effect) -> RequestFault {
        RequestFault::new(name, effect).on(self.method, self.route).once()
    }

    /// Holds this write, or the reply to it, after the given number of writes of its kind.
    ///
    /// A held write stays held as long as the rule exists, whether its client lives or not.
    pub(super) fn hold(&self, faults: &Faults, rule: &str, after: usize, effect: Effect) {
        faults.add(RequestFault {
            after: u64::try_from(after).unwrap(),
            ..self.rule(rule.to_owned(), effect)
        });
    }
}

/// Records the writes while it exists, each with what `position` returned before the write was carried out.
pub(super) struct Notes {
    faults: Faults,
    noted: Arc<Mutex<Vec<(usize, &'static Write)>>>,
    _noting: JoinSet<()>,
}

const OTHERS: [&str; 2] = ["POST", "DELETE"];

impl Notes {
    pub(super) fn of(faults: &Faults, position: impl Fn() -> usize + Clone + Send + 'static) -> Self {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let mut noting = JoinSet::new();
        for write in [&CLAIM, &RELEASE, &MOVE] {
            let rule =
                move |number: usize| write.rule(format!("{} {number}", write.name), Effect::HoldRequest);
            faults.add(rule(0));
            let (faults, noted, position) = (faults.clone(), Arc::clone(&noted), position.clone());
            noting.spawn(async move {
                for number in 0.. {
                    let held = rule(number).name;
                    faults.until_met(&held, 1).await;
                    noted.lock().unwrap().push((position(), write));
                    faults.add(rule(number + 1));
                    faults.remove(&held);
                }
            });
        }
        faults.change(|plan| {
            for method in OTHERS {
                plan.requests.push(RequestFault {
                    method: Some(method.to_owned()),
                    ..RequestFault::new(method, Effect::Delay(Duration::ZERO))
                });
            }
        });
        Self {
            faults: faults.clone(),
            noted,
            _noting: noting,
        }
    }

    /// Returns the writes in their order; fails if one is of an unknown kind.
    pub(super) fn take(self) -> Vec<(usize, &'static Write)> {
        for method in OTHERS {
            assert_eq!(self.faults.met(method), 0, "a {method} that is not listed here");
        }
        self.faults.clear();
        self.noted.lock().unwrap().clone()
    }
}
