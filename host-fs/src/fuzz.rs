//! The mount table from any source.

use crate::mount::MountTable;
use crate::mount::mountinfo::render;

/// Reads any bytes as a mount table and asks it every question.
///
/// # Panics
/// If the table is not the same when it is written as the kernel writes it and read again, or if two results for the
/// same path contradict each other.
pub fn mountinfo(bytes: &[u8]) {
    let Ok(table) = MountTable::parse(bytes) else {
        return;
    };
    let written: Vec<u8> = table.mounts().iter().flat_map(render).collect();
    assert_eq!(MountTable::parse(&written).as_ref(), Ok(&table));
    for mount in table.mounts() {
        let layers = table.layers_at(&mount.point);
        assert!(layers.iter().all(|layer| layer.point == mount.point));
        if let Some(visible) = layers.last() {
            assert_eq!(table.holding(&mount.point), Some(*visible));
        }
        assert!(table.last_point_of(&mount.source).is_some());
        assert!(table.by_device(mount.device).any(|other| other == mount));
        if let Some((device, place)) = table.place(mount) {
            assert!(
                table
                    .by_device(device)
                    .any(|parent| place.starts_with(&parent.root))
            );
        }
        assert!(!mount.to_string().is_empty());
    }
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::{corpus::read_corpus, mountinfo};

    #[test]
    fn the_corpus_of_mount_tables_keeps_every_promise() {
        read_corpus("mountinfo", mountinfo);
    }
}
