//! What the log adds to the ids in its lines: the host of a node, and what people call a volume.
//!
//! Only what was read for another purpose is here: nothing is read for the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

/// The longest host in bytes that is kept: host names have at most 253.
const LONGEST_HOST: usize = 256;

/// How many volumes are remembered beside those that are staged here. Then those of the older half are forgotten.
const MOST_RECENT: usize = 1000;

/// Fields of a line, by name.
pub(crate) type NamedFields = Vec<(&'static str, String)>;

/// One for the process, as the log is.
static NAMES: LazyLock<Mutex<Names>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Names {
    hosts: BTreeMap<Uuid, Box<str>>,
    staged: HashMap<Uuid, NamedFields>,
    /// Volumes of operations that ended lately, each with its place in their order.
    recent: HashMap<Uuid, (u64, NamedFields)>,
    next: u64,
}

/// Records the nodes that Flocker lists, each with its host. An empty list shows only that its control service has started again.
pub(crate) fn set_nodes<'a>(nodes: impl Iterator<Item = (Uuid, &'a str)>) {
    let nodes = nodes.filter(|(_, host)| !host.is_empty() && host.len() <= LONGEST_HOST);
    let nodes: BTreeMap<Uuid, Box<str>> = nodes.map(|(node, host)| (node, host.into())).collect();
    if !nodes.is_empty() {
        lock().hosts = nodes;
    }
}

/// Returns the host of a node, if the node was listed last.
pub(crate) fn host_of(node: Uuid) -> Option<String> {
    lock().hosts.get(&node).map(ToString::to_string)
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

    #[test]
    fn a_node_keeps_its_host_until_another_list_replaces_it() {
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
        listed(&[(two, "10.0.0.2")]);
        assert_eq!(host_of(one), None);
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
