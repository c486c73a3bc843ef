//! What log and messages add to ids: the host of a node, and what people call a volume.
//!
//! Only what was read for another purpose is here: nothing is read for the log.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// The longest host in bytes that is kept: host names have at most 253.
const LONGEST_HOST: usize = 256;

/// How many nodes are remembered that Flocker no longer lists: the address of a lost machine is what an operator looks for.
const MOST_MISSING: usize = 100;

/// How many nodes a message names at most.
const MOST_NAMED: usize = 5;

/// How many volumes are remembered beside those that are staged here. Then those of the older half are forgotten.
const MOST_RECENT: usize = 1000;

/// Fields of a line, by name.
pub(crate) type NamedFields = Vec<(&'static str, String)>;

/// One for the process, as the log is.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Names {
    hosts: BTreeMap<Uuid, Box<str>>,
    /// The hosts of nodes that were listed before.
    missing: BTreeMap<Uuid, Box<str>>,
    staged: HashMap<Uuid, NamedFields>,
    /// Volumes of operations that ended lately, each with its place in their order.
    recent: HashMap<Uuid, (u64, NamedFields)>,
    next: u64,
}

/// Records the nodes that Flocker lists, each with its host. An empty list shows only that its control service has started again.
pub(crate) fn set_nodes<'a>(nodes: impl Iterator<Item = (Uuid, &'a str)>) {
    let nodes = nodes.filter(|(_, host)| !host.is_empty() && host.len() <= LONGEST_HOST);
    let nodes: BTreeMap<Uuid, Box<str>> = nodes.map(|(node, host)| (node, host.into())).collect();
    if nodes.is_empty() {
        return;
    }
    let mut names = lock();
    let Names { hosts, missing, .. } = &mut *names;
    missing.extend(std::mem::replace(hosts, nodes));
    missing.retain(|node, _| !hosts.contains_key(node));
    while missing.len() > MOST_MISSING {
        missing.pop_first();
    }
}

/// Returns the host of a node, if it was ever listed.
pub(crate) fn host_of(node: Uuid) -> Option<String> {
    let names = lock();
    let host = names.hosts.get(&node).or_else(|| names.missing.get(&node));
    host.map(ToString::to_string)
}

/// A node in a message: its UUID, with its host where that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NamedNode(pub(crate) Uuid);

impl fmt::Display for NamedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match host_of(self.0) {
            Some(host) => write!(f, "{} ({host})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Returns the nodes that Flocker listed last, for a message about one that it does not list.
pub(crate) fn listed_nodes() -> String {
    let Names { hosts, .. } = &*lock();
    let first = hosts.iter().take(MOST_NAMED);
    let first: Vec<_> = first.map(|(node, host)| format!("{node} ({host})")).collect();
    let first = first.join(", ");
    match hosts.len() {
        0 => "none".to_owned(),
        all if all > MOST_NAMED => format!("{first} and {} more", all - MOST_NAMED),
        _ => first,
    }
}

/// Records the fields of a volume that is staged on this machine; without any, the volume is forgotten.
pub(crate) fn set_staged(dataset: Uuid, fields: NamedFields) {
    let staged = &mut lock().staged;
    if fields.is_empty() {
        staged.remove(&dataset);
    } else {
        staged.insert(dataset, fields);
    }
}

/// Remembers the fields of any volume, for some time.
pub(crate) fn remember(dataset: Uuid, fields: NamedFields) {
    let mut names = lock();
    let now = names.next;
    names.next += 1;
    names.recent.insert(dataset, (now, fields));
    if names.recent.len() > MOST_RECENT {
        let newest = now.saturating_sub(MOST_RECENT as u64 / 2);
        names.recent.retain(|_, (when, _)| *when > newest);
    }
}

/// Returns the fields of a volume, as far as they are known.
pub(crate) fn fields_of(dataset: Uuid) -> NamedFields {
    let names = lock();
    let recent = || names.recent.get(&dataset).map(|(_, fields)| fields);
    names
        .staged
        .get(&dataset)
        .or_else(recent)
        .cloned()
        .unwrap_or_default()
}

fn lock() -> MutexGuard<'static, Names> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names are the process's: of the tests that list nodes, one runs at a time.
    static ALONE: Mutex<()> = Mutex::new(());

    fn alone() -> MutexGuard<'static, ()> {
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn a_node_keeps_its_host_until_another_list_replaces_it() {
        let _alone = alone();
        let (one, two) = (Uuid::from_u128(0x51), Uuid::from_u128(0x52));
        let long = "h".repeat(LONGEST_HOST + 1);
        // Other tests of the process may list nodes of their own in between.
        let listed = |nodes: &[(Uuid, &str)]| {
            let mut names = lock();
            names.hosts.clear();
            drop(names);
            set_nodes(nodes.iter().copied());
        };
        listed(&[(one, "10.0.0.1"), (two, &long)]);
        assert_eq!(host_of(two), None, "no list makes the plugin keep any text");
        set_nodes([].into_iter());
        listed(&[(one, "10.0.0.1"), (two, "10.0.0.2")]);
        assert_eq!(host_of(two).as_deref(), Some("10.0.0.2"));
    }

    #[test]
    fn the_host_of_a_node_that_is_missing_is_still_known() {
        let _alone = alone();
        let (one, two) = (Uuid::from_u128(0x54), Uuid::from_u128(0x55));
        set_nodes([(one, "10.0.0.4"), (two, "10.0.0.5")].into_iter());
        set_nodes([(two, "10.0.0.5")].into_iter());
        assert_eq!(NamedNode(one).to_string(), format!("{one} (10.0.0.4)"));
        set_nodes([(one, "10.0.0.6")].into_iter());
        assert_eq!(host_of(one).as_deref(), Some("10.0.0.6"));
        for number in 0..10 * MOST_MISSING as u128 {
            set_nodes([(Uuid::from_u128(0x2000 + number), "10.0.0.7")].into_iter());
        }
        assert!(lock().missing.len() <= MOST_MISSING);
    }

    #[test]
    fn a_message_names_few_nodes() {
        let _alone = alone();
        let nodes: Vec<_> = (0..20)
            .map(|number| (Uuid::from_u128(0x9000 + number), "10.0.0.8"))
            .collect();
        set_nodes(nodes.iter().copied());
        let text = listed_nodes();
        // Other tests of the process may list nodes of their own in between.
        assert!(
            text.split(", ").count() <= MOST_NAMED && !text.is_empty(),
            "{text}"
        );
    }

    #[test]
    fn a_volume_is_forgotten_with_its_last_field() {
        let volume = Uuid::from_u128(0x53);
        set_staged(volume, vec![("volume.name", "data".to_owned())]);
        assert_eq!(fields_of(volume), [("volume.name", "data".to_owned())]);
        set_staged(volume, Vec::new());
        assert!(fields_of(volume).is_empty());
    }

    #[test]
    fn few_of_the_volumes_that_were_worked_on_are_remembered() {
        let volume = |number: usize| Uuid::from_u128(0x1000 + number as u128);
        for number in 0..10 * MOST_RECENT {
            remember(volume(number), vec![("volume.name", number.to_string())]);
        }
        assert!(lock().recent.len() <= MOST_RECENT);
        let last = 10 * MOST_RECENT - 1;
        assert_eq!(fields_of(volume(last)), [("volume.name", last.to_string())]);
        assert!(fields_of(volume(0)).is_empty());
    }
}
