//! A mount table for questions about many of its mounts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::entry::{Device, Mount};
use super::table::MountTable;

/// The mounts of a table by their ids, and by where they lie. A question costs the same in a table of any size; building this
/// costs as much as one or two questions to the table.
#[derive(Debug)]
pub struct MountIndex<'t> {
    by_id: HashMap<u64, &'t Mount>,
    /// By the mount that they lie on, and their point.
    by_place: HashMap<(u64, &'t Path), &'t Mount>,
    /// Those that lie on no mount of the table.
    roots: Vec<&'t Mount>,
}

impl<'t> MountIndex<'t> {
    /// Builds the index of a table.
    pub fn of(table: &'t MountTable) -> Self {
        let mounts = table.mounts();
        let by_id: HashMap<_, _> = mounts.iter().map(|mount| (mount.id, mount)).collect();
        let is_root = |mount: &&Mount| mount.parent == mount.id || !by_id.contains_key(&mount.parent);
        let mut by_place = HashMap::with_capacity(mounts.len());
        for mount in mounts {
            by_place
                .entry((mount.parent, mount.point.as_path()))
                .or_insert(mount);
        }
        Self {
            roots: mounts.iter().filter(is_root).collect(),
            by_id,
            by_place,
        }
    }

    /// As [`MountTable::by_id`].
    pub fn by_id(&self, id: u64) -> Option<&'t Mount> {
        self.by_id.get(&id).copied()
    }

    /// As [`MountTable::layers_at`].
    pub fn layers_at(&self, path: &Path) -> Vec<&'t Mount> {
        let mut layers = self.on_the_way_to(path);
        layers.retain(|mount| mount.point == path);
        layers
    }

    /// As [`MountTable::holding`].
    pub fn holding(&self, path: &Path) -> Option<&'t Mount> {
        self.on_the_way_to(path).pop()
    }

    /// As [`MountTable::place`].
    pub fn place(&self, mount: &Mount) -> Option<(Device, PathBuf)> {
        let parent = self.by_id(mount.parent)?;
        let below = mount.point.strip_prefix(&parent.point).ok()?;
        Some((parent.device, parent.root.join(below)))
    }

    /// Follows a path from the root the way the kernel does, as the table does it.
    fn on_the_way_to(&self, path: &Path) -> Vec<&'t Mount> {
        let mut ways: Vec<&Path> = path.ancestors().collect();
        ways.reverse();
        let mut crossed: Vec<&Mount> = Vec::new();
        let roots = self.roots.iter().filter(|root| path.starts_with(&root.point));
        let mut next = roots.min_by_key(|root| root.point.as_os_str().len()).copied();
        while let Some(mount) = next
            && !crossed.iter().any(|earlier| std::ptr::eq(*earlier, mount))
        {
            crossed.push(mount);
            let below = ways.iter().filter(|way| way.starts_with(&mount.point));
            let mut children = below.filter_map(|way| self.by_place.get(&(mount.id, *way)));
            next = children.find(|child| child.id != mount.id).copied();
        }
        crossed
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{bind, in_own_namespace, tmpfs, tmpfs_named};
    use super::*;

    #[test]
    fn the_index_answers_as_the_table_does() {
        in_own_namespace(|scratch| {
            let (a, b) = (scratch.join("a"), scratch.join("a/b"));
            tmpfs_named("bottom", &a);
            tmpfs_named("hidden", &b);
            tmpfs_named("cover", &a);
            tmpfs_named("below", &b);
            tmpfs_named("over", &b);
            tmpfs(&scratch.join("ab"));
            bind(&a, &scratch.join("copy"));
            let table = MountTable::read().unwrap();
            let index = MountIndex::of(&table);
            for mount in table.mounts() {
                let file = mount.point.join("file");
                for path in [&mount.point, &file] {
                    assert_eq!(index.layers_at(path), table.layers_at(path), "{}", path.display());
                    assert_eq!(index.holding(path), table.holding(path), "{}", path.display());
                }
                assert_eq!(index.place(mount), table.place(mount));
                assert_eq!(index.by_id(mount.id), table.by_id(mount.id));
            }
            assert_eq!(index.layers_at(&b).len(), 2);
        });
    }

    #[test]
    fn mounts_that_lie_on_each_other_end_the_way() {
        let text =
            b"1 0 8:0 / / rw - ext4 root rw\n2 1 0:40 / /a rw - tmpfs a rw\n1 2 0:41 / /a rw - tmpfs b rw\n";
        let table = MountTable::parse(text).unwrap();
        MountIndex::of(&table).layers_at(Path::new("/a"));
    }
}
