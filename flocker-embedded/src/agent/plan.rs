//! The next steps of an agent, computed from the configuration and what the agent observes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use uuid::Uuid;

use crate::backend::{Condition, Seen};
use crate::storage_status::AgentStep;
use crate::store::Configuration;

/// A step that concerns one dataset alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    /// Creates the backing volume, of this size in bytes.
    Create(u64),
    Format(PathBuf),
    Mount(PathBuf),
    Unmount(PathBuf),
    Detach(PathBuf),
    /// Detaches a dataset that is attached to a machine that is off.
    DetachFromDead,
    Destroy,
}

impl Step {
    /// Returns the name that metrics have for it.
    pub(super) fn kind(&self) -> AgentStep {
        match self {
            Self::Create(_) => AgentStep::Create,
            Self::Format(_) => AgentStep::Format,
            Self::Mount(_) => AgentStep::Mount,
            Self::Unmount(_) => AgentStep::Unmount,
            Self::Detach(_) => AgentStep::Detach,
            Self::DetachFromDead => AgentStep::DetachFromDead,
            Self::Destroy => AgentStep::Destroy,
        }
    }
}

/// The next steps of one agent. After them it observes again, and plans the steps that follow.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    /// Datasets whose volume must be recorded in the configuration.
    pub(super) register: Vec<Uuid>,
    /// Datasets whose volume must be attached here.
    pub(super) attach: Vec<Uuid>,
    /// Steps of other datasets.
    pub(super) steps: Vec<(Uuid, Step)>,
    /// Whether a dataset is wanted here that another node has not detached yet, or whose volume is missing, or one
    /// cannot be examined at present.
    pub(super) waits: bool,
}

/// What is wanted of a dataset on this node.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Mounted,
    Elsewhere,
    Deleted,
}

impl Plan {
    /// Plans the steps of `node`.
    pub(super) fn new(node: Uuid, configuration: &Configuration, seen: &BTreeMap<Uuid, Seen>) -> Self {
        let mut plan = Self::default();
        let datasets = configuration.datasets.iter();
        for (id, dataset) in datasets.filter(|(id, dataset)| !dataset.deleted && !seen.contains_key(id)) {
            if dataset.primary == node {
                plan.steps.push((*id, Step::Create(dataset.size())));
            }
        }
        for (id, seen) in seen {
            match next(wanted(node, configuration, *id, &seen.condition), &seen.condition) {
                Next::Register => plan.register.push(*id),
                Next::Attach => plan.attach.push(*id),
                Next::Step(step) => plan.steps.push((*id, step)),
                Next::Wait => plan.waits = true,
                Next::Nothing => {}
            }
        }
        plan
    }

    pub(super) fn is_empty(&self) -> bool {
        self.register.is_empty() && self.attach.is_empty() && self.steps.is_empty()
    }
}

fn wanted(node: Uuid, configuration: &Configuration, dataset: Uuid, condition: &Condition) -> Wanted {
    // A lease protects a dataset that is seen mounted, and no other. It never moves a dataset to its node.
    let protected =
        matches!(condition, Condition::Mounted(_)) && configuration.leaseholder(dataset) == Some(node);
    match configuration.datasets.get(&dataset) {
        _ if protected => Wanted::Mounted,
        Some(configured) if configured.primary != node => Wanted::Elsewhere,
        Some(configured) if configured.deleted => Wanted::Deleted,
        Some(_) => Wanted::Mounted,
        None => Wanted::Elsewhere,
    }
}

/// The next step of a dataset that has a volume.
#[derive(Debug, PartialEq)]
enum Next {
    Register,
    Attach,
    Step(Step),
    Wait,
    Nothing,
}

fn next(wanted: Wanted, condition: &Condition) -> Next {
    use Condition::{
        Attached, AttachedElsewhere, AttachedToDead, Detached, Mounted, Unavailable, Unexamined, Unformatted,
        Unregistered,
    };

    match (wanted, condition) {
        (Wanted::Mounted, Unregistered) => Next::Register,
        (Wanted::Mounted, Detached) => Next::Attach,
        (Wanted::Mounted, Unformatted(device)) => Next::Step(Step::Format(device.clone())),
        (Wanted::Mounted, Attached(device)) => Next::Step(Step::Mount(device.clone())),
        (Wanted::Mounted | Wanted::Deleted, AttachedElsewhere)
        | (Wanted::Mounted, Unavailable)
        | (_, Unexamined) => Next::Wait,
        (Wanted::Mounted | Wanted::Deleted, AttachedToDead) => Next::Step(Step::DetachFromDead),
        (Wanted::Elsewhere | Wanted::Deleted, Mounted(device)) => Next::Step(Step::Unmount(device.clone())),
        (Wanted::Elsewhere | Wanted::Deleted, Attached(device) | Unformatted(device)) => {
            Next::Step(Step::Detach(device.clone()))
        }
        (Wanted::Deleted, Detached | Unregistered) => Next::Step(Step::Destroy),
        (Wanted::Mounted, Mounted(_))
        | (Wanted::Elsewhere, Detached | Unregistered | AttachedElsewhere | AttachedToDead)
        | (Wanted::Elsewhere | Wanted::Deleted, Unavailable) => Next::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Dataset, Lease};

    const HERE: Uuid = Uuid::from_u128(1);
    const THERE: Uuid = Uuid::from_u128(2);
    const DATASET: Uuid = Uuid::from_u128(3);

    fn configured(primary: Uuid, deleted: bool) -> Configuration {
        let dataset = Dataset {
            primary,
            deleted,
            maximum_size: Some(crate::store::Size::Bytes(1)),
            metadata: BTreeMap::new(),
        };
        Configuration {
            datasets: BTreeMap::from([(DATASET, dataset.into())]),
            ..Configuration::default()
        }
    }

    fn leased(mut configuration: Configuration, node: Uuid) -> Configuration {
        configuration
            .leases
            .insert(DATASET, Lease { node, expires: None });
        configuration
    }

    fn device() -> PathBuf {
        PathBuf::from("/dev/loop7")
    }

    fn next_of(configuration: &Configuration, condition: &Condition) -> Next {
        next(wanted(HERE, configuration, DATASET, condition), condition)
    }

    #[test]
    fn a_wanted_dataset_is_created_recorded_attached_formatted_and_mounted() {
        let configuration = configured(HERE, false);
        let absent = Plan::new(HERE, &configuration, &BTreeMap::new());
        assert_eq!(absent.steps, [(DATASET, Step::Create(1))]);
        let steps = [
            (Condition::Unregistered, Next::Register),
            (Condition::Detached, Next::Attach),
            (
                Condition::Unformatted(device()),
                Next::Step(Step::Format(device())),
            ),
            (Condition::Attached(device()), Next::Step(Step::Mount(device()))),
            (Condition::Mounted(device()), Next::Nothing),
        ];
        for (condition, expected) in steps {
            assert_eq!(next_of(&configuration, &condition), expected);
        }
    }

    #[test]
    fn a_dataset_wanted_elsewhere_is_unmounted_and_detached_but_never_destroyed() {
        let steps = [
            (Condition::Mounted(device()), Next::Step(Step::Unmount(device()))),
            (Condition::Attached(device()), Next::Step(Step::Detach(device()))),
            (Condition::Detached, Next::Nothing),
        ];
        for (condition, expected) in steps {
            assert_eq!(next_of(&configured(THERE, false), &condition), expected);
            assert_eq!(next_of(&configured(THERE, true), &condition), expected);
            assert_eq!(
                next_of(&Configuration::default(), &condition),
                expected,
                "not configured"
            );
        }
    }

    #[test]
    fn a_deleted_dataset_is_destroyed_by_its_primary_once_it_is_detached() {
        let steps = [
            (Condition::Mounted(device()), Next::Step(Step::Unmount(device()))),
            (
                Condition::Unformatted(device()),
                Next::Step(Step::Detach(device())),
            ),
            (Condition::AttachedElsewhere, Next::Wait),
            (Condition::Detached, Next::Step(Step::Destroy)),
        ];
        for (condition, expected) in steps {
            assert_eq!(next_of(&configured(HERE, true), &condition), expected);
        }
        assert!(Plan::new(HERE, &configured(HERE, true), &BTreeMap::new()).is_empty());
    }

    #[test]
    fn a_lease_of_this_node_protects_only_what_is_seen_mounted() {
        let moved = leased(configured(THERE, false), HERE);
        assert_eq!(next_of(&moved, &Condition::Mounted(device())), Next::Nothing);
        assert_eq!(
            next_of(&moved, &Condition::Attached(device())),
            Next::Step(Step::Detach(device()))
        );

        let others = leased(configured(THERE, false), THERE);
        assert_eq!(
            next_of(&others, &Condition::Mounted(device())),
            Next::Step(Step::Unmount(device()))
        );
    }

    #[test]
    fn a_dataset_of_a_machine_that_is_off_is_detached_by_the_node_that_wants_it() {
        let dead = Condition::AttachedToDead;
        for deleted in [false, true] {
            let step = Next::Step(Step::DetachFromDead);
            assert_eq!(next_of(&configured(HERE, deleted), &dead), step);
            assert_eq!(next_of(&configured(THERE, deleted), &dead), Next::Nothing);
        }
    }

    #[test]
    fn a_dataset_that_another_node_still_has_or_that_cannot_be_examined_or_used_is_waited_for() {
        for condition in [
            Condition::AttachedElsewhere,
            Condition::Unexamined,
            Condition::Unavailable,
        ] {
            let seen = BTreeMap::from([(DATASET, Seen { size: 1, condition })]);
            let plan = Plan::new(HERE, &configured(HERE, false), &seen);
            assert!(plan.is_empty() && plan.waits, "{seen:?}");
        }
    }
}
