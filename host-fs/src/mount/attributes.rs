//! The attributes of a mount, as opposed to those of its file system.

use rustix::mount::MountAttrFlags;

use super::entry::Mount;

/// What a mount is to have otherwise than the one it is bound from; what it leaves open is inherited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeChange {
    /// What is set.
    pub set: MountAttrFlags,
    /// What is cleared first.
    pub clear: MountAttrFlags,
}

impl Default for AttributeChange {
    /// Changes nothing.
    fn default() -> Self {
        AttributeChange {
            set: MountAttrFlags::empty(),
            clear: MountAttrFlags::empty(),
        }
    }
}

impl AttributeChange {
    /// Whether it changes nothing.
    pub fn is_empty(self) -> bool {
        (self.set | self.clear).is_empty()
    }

    /// Whether it refuses writing.
    pub fn read_only(self) -> bool {
        self.set.contains(MountAttrFlags::MOUNT_ATTR_RDONLY)
    }

    /// Returns the attributes of a mount that inherits these and is changed.
    pub fn over(self, inherited: MountAttrFlags) -> MountAttrFlags {
        (inherited - self.clear) | self.set
    }

    /// Whether a mount behaves as if it had been bound from a writable one with this change.
    ///
    /// A mount that is read-only without having been asked to be does not.
    pub fn describes(self, mount: &Mount) -> bool {
        self.over(mount.attributes) == mount.attributes && self.read_only() == mount.read_only()
    }
}
