//! How two targets lie to each other.

use std::io;
use std::path::Path;

use super::{Target, TargetError, parent};

/// How one target lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Neither is the other, nor below it.
    Apart,
    /// Both are one directory.
    Same,
    /// The first is below the other.
    Below,
    /// The first is above the other.
    Above,
}

impl Target {
    /// Returns how this target lies to another one, whether the directories exist or not.
    ///
    /// Two paths are one directory when they are equal, or have the same name in one directory above, by device and
    /// inode: a bind mount shows a directory at several paths. Below and above go by the paths without symbolic links.
    /// Only two different paths that end in the same name cost system calls, two.
    ///
    /// # Errors
    /// [`TargetError::Io`] when the kernel refuses to identify a directory above.
    pub fn relation_to(&self, other: &Target) -> Result<Relation, TargetError> {
        let (own, others) = (self.path(), other.path());
        Ok(if own == others {
            Relation::Same
        } else if own.starts_with(others) {
            Relation::Below
        } else if others.starts_with(own) {
            Relation::Above
        } else if self.name() == other.name() && self.parent_identity()? == other.parent_identity()? {
            Relation::Same
        } else {
            Relation::Apart
        })
    }

    /// Returns device and inode of the directory above.
    fn parent_identity(&self) -> Result<(u32, u32, u64), TargetError> {
        parent::identity(self.parent()).map_err(|error| TargetError::Io {
            action: "identify",
            path: self.path.parent().unwrap_or(Path::new("/")).to_owned(),
            source: io::Error::from(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{bind, in_own_namespace, tmpfs};
    use super::*;
    use std::os::unix::fs::symlink;

    fn relation(one: &Path, other: &Path) -> Relation {
        let (one, other) = (Target::open(one).unwrap(), Target::open(other).unwrap());
        let relation = one.relation_to(&other).unwrap();
        let inverse = match relation {
            Relation::Below => Relation::Above,
            Relation::Above => Relation::Below,
            symmetric => symmetric,
        };
        assert_eq!(other.relation_to(&one).unwrap(), inverse);
        relation
    }

    #[test]
    fn paths_are_compared_without_their_symbolic_links() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir_all(path("real/a/b")).unwrap();
        symlink("real", path("link")).unwrap();
        for (one, other, expected) in [
            ("real/a", "link/a", Relation::Same),
            ("real/missing", "link/missing", Relation::Same),
            ("link/a/b", "real/a", Relation::Below),
            ("link/a/missing", "real/a", Relation::Below),
            ("real", "link/a", Relation::Above),
            ("real/a", "real/ab", Relation::Apart),
            ("real/a/b", "real/b", Relation::Apart),
        ] {
            assert_eq!(relation(&path(one), &path(other)), expected, "{one}, {other}");
        }
    }

    #[test]
    fn one_directory_at_two_paths_is_the_same() {
        in_own_namespace(|scratch| {
            let (one, other) = (scratch.join("one"), scratch.join("other"));
            std::fs::create_dir_all(one.join("a")).unwrap();
            bind(&one, &other);
            assert_eq!(relation(&one.join("a"), &other.join("a")), Relation::Same);
            assert_eq!(
                relation(&one.join("missing"), &other.join("missing")),
                Relation::Same
            );
            assert_eq!(relation(&one.join("a"), &other.join("b")), Relation::Apart);
            // What is mounted on one of them does not make it another directory.
            tmpfs(&other.join("a"));
            assert_eq!(relation(&one.join("a"), &other.join("a")), Relation::Same);
        });
    }

    #[test]
    fn one_volume_at_two_targets_does_not_make_them_the_same() {
        in_own_namespace(|scratch| {
            for name in ["one", "other"] {
                std::fs::create_dir(scratch.join(name)).unwrap();
            }
            let (one, other) = (scratch.join("one/volume"), scratch.join("other/volume"));
            tmpfs(&one);
            bind(&one, &other);
            assert_eq!(relation(&one, &other), Relation::Apart);
        });
    }
}
