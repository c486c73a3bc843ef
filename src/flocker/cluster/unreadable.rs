//! Entries of Flocker's lists that cannot be decoded: each is logged once, and costs no other.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use flocker_client::{EntryFault, Unreadable};
use uuid::Uuid;

use crate::telemetry::{Counter, Counters};

/// The maximum number of entries that are logged by a process.
const LOGGED: usize = 1_000;

/// The kind of a list, in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ListKind {
    Configuration,
    State,
    Nodes,
    Leases,
}

impl ListKind {
    fn of_one(self) -> &'static str {
        match self {
            Self::Configuration => "dataset in the configuration",
            Self::State => "dataset in the state",
            Self::Nodes => "node",
            Self::Leases => "lease of dataset",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Configuration => "/v1/configuration/datasets",
            Self::State => "/v1/state/datasets",
            Self::Nodes => "/v1/state/nodes",
            Self::Leases => "/v1/configuration/leases",
        }
    }
}

impl fmt::Display for ListKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.of_one())
    }
}

/// The entries that have been logged.
#[derive(Default)]
pub(super) struct EntryLog {
    /// An entry without a readable id is one of its list.
    logged: Mutex<HashSet<(ListKind, Option<Uuid>)>>,
}

impl EntryLog {
    /// Logs and counts what of a list is found for the first time.
    pub(super) fn note(&self, kind: ListKind, unreadable: &Unreadable, counters: &Counters) {
        let Unreadable {
            faults, without_id, ..
        } = unreadable;
        for EntryFault { id, reason } in faults {
            if !self.is_new(kind, *id) {
                continue;
            }
            counters.count(Counter::EntriesUnreadable);
            let path = kind.path();
            let Some(id) = id else {
                tracing::warn!(
                    "Flocker lists {without_id} elements without a readable id in GET {path}, which are left out; the first: \
                     {reason}. This is logged once"
                );
                continue;
            };
            tracing::warn!(
                entry.id = %id,
                "Flocker lists a {kind} {id} that cannot be read as a whole: {reason}. Calls that depend on what cannot be \
                 read fail and name it; everything else works. This is logged once; GET {path} shows all of it"
            );
        }
    }

    fn is_new(&self, kind: ListKind, id: Option<Uuid>) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < LOGGED && logged.insert((kind, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(ids: impl Iterator<Item = Option<u128>>) -> Unreadable {
        let fault = |id: Option<u128>| EntryFault {
            id: id.map(Uuid::from_u128),
            reason: "maximum_size is 1e400".to_owned(),
        };
        Unreadable {
            faults: ids.map(fault).collect(),
            ..Unreadable::default()
        }
    }

    #[test]
    fn each_entry_is_noted_once_and_their_number_is_bounded() {
        let (log, counters) = (EntryLog::default(), Counters::default());
        let seen = || counters.get(Counter::EntriesUnreadable);
        let odd = unreadable([Some(1), Some(2), None, None].into_iter());
        for _ in 0..3 {
            log.note(ListKind::Configuration, &odd, &counters);
            assert_eq!(seen(), 3);
        }
        log.note(ListKind::State, &odd, &counters);
        assert_eq!(seen(), 6, "another list has other entries");
        log.note(ListKind::Leases, &unreadable((0..5_000).map(Some)), &counters);
        assert_eq!(seen(), LOGGED as u64);
    }
}
