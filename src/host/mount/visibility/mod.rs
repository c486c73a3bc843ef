//! Whether the host sees a mount of the plugin, and the plugin a mount of the host.
//!
//! A mount appears in another mount namespace where a member of its parent's *peer group* is. That the parent is shared
//! proves nothing by itself: a namespace as systemd makes it for `PrivateTmp=` or `ProtectSystem=` has shared mounts whose
//! peers are all inside. So the host has to be in the group, which the mount table of process 1 shows where that process is
//! the host's. A pod does not see the host's processes; there, a shared mount is one that the host gave it.
//!
//! | where the plugin runs | what is published |
//! |---|---|
//! | in the mount namespace of the host | everywhere |
//! | apart from it, and process 1 is the host's | where the host is in the peer group |
//! | the same, and its table cannot be read | nowhere, or on shared mounts with `accept_unverified_propagation` |
//! | in a container with processes of its own | on shared mounts |

#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_fs::mount::holding;
use host_fs::mount::{Mount, MountTable, TableError};

/// The inode number of the initial PID namespace in every Linux (`PROC_PID_INIT_INO`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The first process of this PID namespace.
const FIRST_PROCESS: &str = "1";

/// What gives the plugin mounts that the host sees.
const REMEDY: &str = "give the plugin that directory with bidirectional mount propagation (Kubernetes: mountPropagation: \
    Bidirectional; docker and podman: --volume DIR:DIR:rshared; systemd: no PrivateTmp=, PrivateMounts=, ProtectSystem= or \
    the like, of the plugin and of what starts it";

/// Why a mount at a path would not be visible, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VisibilityError {
    /// The mount would be seen by the plugin alone.
    #[error(
        "a volume mounted at {} would be visible to the plugin alone, because {holder} is not shared with the host; \
         {REMEDY}); and on the host, if needed: mount --make-rshared {}", .path.display(), .holder.point.display()
    )]
    Hidden {
        /// Where the volume should be mounted.
        path: PathBuf,
        /// The mount that holds the path.
        holder: Box<Mount>,
    },
    /// The mount would be seen in mount namespaces that are not the host's.
    #[error(
        "a volume mounted at {} would not be visible to the host, because {holder} is shared within the plugin's mount \
         namespace only: its peer group {} has no member in the mount table of process 1 that holds this path; {REMEDY})",
        .path.display(), .holder.propagation.peer_group.unwrap_or_default()
    )]
    HostNotInGroup {
        /// Where the volume should be mounted.
        path: PathBuf,
        /// The mount that holds the path.
        holder: Box<Mount>,
    },
    /// The table that would show whether the host sees the mount cannot be read.
    #[error(
        "whether the host would see a volume mounted at {} cannot be verified: it takes the mount table of process 1; let the \
         plugin read that (/proc without hidepid= and ProtectProc=), or set accept_unverified_propagation if every mount on \
         {holder} is known to reach the host", .path.display()
    )]
    Unverified {
        /// Where the volume should be mounted.
        path: PathBuf,
        /// The mount that holds the path.
        holder: Box<Mount>,
        /// What failed.
        #[source]
        source: Arc<TableError>,
    },
    /// No mount holds the path.
    #[error("no mount in the table holds {}", .0.display())]
    NoHolder(PathBuf),
    /// The mount table could not be read.
    #[error("cannot find the mount that holds {}", .path.display())]
    Table {
        /// Where the volume should be mounted.
        path: PathBuf,
        /// What failed.
        #[source]
        source: TableError,
    },
}

/// Which processes see the plugin's mounts; fixed for the life of a process.
#[derive(Debug, Clone)]
pub(crate) struct MountVisibility {
    host: HostView,
    accept_unverified: bool,
}

/// What this process knows of the host's mounts.
#[derive(Debug, Clone)]
enum HostView {
    /// They are its own: it runs in the mount namespace of the host.
    Same,
    /// They are those of this process, in another mount namespace.
    Process(String),
    /// They should be those of process 1, whose table cannot be read.
    Unreadable(Arc<TableError>),
    /// Nothing: every process that it sees belongs to its container.
    Container,
}

impl MountVisibility {
    /// Detects where this process runs. With `accept_unverified`, a shared mount counts as visible to the host without
    /// verification.
    pub(crate) fn of_this_process(accept_unverified: bool) -> MountVisibility {
        MountVisibility {
            host: HostView::detect(initial_pid_namespace(), FIRST_PROCESS),
            accept_unverified,
        }
    }

    /// Whether this process runs in the mount namespace of the host.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self.host, HostView::Same)
    }

    /// Checks that the host would see a mount made at a path.
    ///
    /// The path need not exist but its parent must, and neither may contain a symbolic link.
    pub(crate) fn check(&self, path: &Path) -> Result<(), VisibilityError> {
        if self.is_host() {
            return Ok(());
        }
        let directory = path.parent().unwrap_or(path);
        let holder = holder_of(path, directory)?;
        let Some(group) = holder.propagation.peer_group else {
            return Err(VisibilityError::Hidden {
                path: path.to_owned(),
                holder: Box::new(holder),
            });
        };
        let Some(process) = self.process_to_ask() else {
            return match &self.host {
                HostView::Unreadable(source) if !self.accept_unverified => Err(VisibilityError::Unverified {
                    path: path.to_owned(),
                    holder: Box::new(holder),
                    source: Arc::clone(source),
                }),
                _ => Ok(()),
            };
        };
        // A member that shows another part of the file system does not receive mounts made in this one.
        let place = place_in_file_system(&holder, directory);
        let holds_it = |mount: &Mount| {
            mount.id == holder.id
                || (mount.propagation.peer_group == Some(group) && place.starts_with(&mount.root))
        };
        match MountTable::find_in(process, holds_it) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(VisibilityError::HostNotInGroup {
                path: path.to_owned(),
                holder: Box::new(holder),
            }),
            Err(source) => Err(VisibilityError::Unverified {
                path: path.to_owned(),
                holder: Box::new(holder),
                source: Arc::new(source),
            }),
        }
    }

    /// Returns the mount that holds an existing directory if what the host mounts below that does not appear here.
    pub(crate) fn not_receiving(&self, directory: &Path) -> Result<Option<Mount>, VisibilityError> {
        let holder = holder_of(directory, directory)?;
        Ok((!self.receives(&holder)).then_some(holder))
    }

    /// Whether what the host mounts below a mount of this process appears here too.
    ///
    /// The group that the mount is a slave of may receive from the host through others, so it counts as receiving.
    pub(crate) fn receives(&self, holder: &Mount) -> bool {
        if self.is_host() || holder.propagation.master.is_some() {
            return true;
        }
        match (holder.propagation.peer_group, self.process_to_ask()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(group), Some(process)) => {
                let is_host_side =
                    |mount: &Mount| mount.id == holder.id || mount.propagation.peer_group == Some(group);
                // A host that cannot be asked is no reason to report a fault.
                MountTable::find_in(process, is_host_side).map_or(true, |found| found.is_some())
            }
        }
    }

    /// Returns what to warn of at the start: why volumes could not be published anywhere, or are without verification.
    pub(crate) fn warning(&self) -> Option<String> {
        self.obstacle().or_else(|| {
            (self.accept_unverified && !self.is_host()).then(|| {
                "accept_unverified_propagation is set: volumes are published on every shared mount, also where the host \
                 does not see them and tasks write into a plain directory"
                    .to_owned()
            })
        })
    }

    /// Returns why volumes cannot be published anywhere, if that is so.
    pub(crate) fn obstacle(&self) -> Option<String> {
        let text = match &self.host {
            HostView::Same => return None,
            HostView::Unreadable(_) if !self.accept_unverified => {
                "The mount table of process 1 cannot be read, which would show whether the host sees what this process \
                 mounts, so no volume can be published: let the plugin read /proc/1/mountinfo, or set \
                 accept_unverified_propagation if its mounts are known to reach the host"
                    .to_owned()
            }
            _ if !self.any_seen_by_host() => format!(
                "No mount of this process is shared with the host, so no volume can be published: {REMEDY})"
            ),
            _ => return None,
        };
        Some(text)
    }

    /// Whether a volume could be published somewhere.
    fn any_seen_by_host(&self) -> bool {
        let Ok(own) = MountTable::read() else {
            return true;
        };
        let groups: Vec<_> = own
            .mounts()
            .iter()
            .filter_map(|mount| mount.propagation.peer_group)
            .collect();
        let of_host = |mount: &Mount| {
            mount
                .propagation
                .peer_group
                .is_some_and(|group| groups.contains(&group))
        };
        match self.process_to_ask() {
            Some(process) => MountTable::find_in(process, of_host).map_or(true, |found| found.is_some()),
            None => !groups.is_empty(),
        }
    }

    /// Returns the process whose mounts are the host's, if it is to be asked.
    fn process_to_ask(&self) -> Option<&str> {
        match &self.host {
            HostView::Process(process) if !self.accept_unverified => Some(process),
            _ => None,
        }
    }
}

impl HostView {
    /// Detects what the first process of the PID namespace, `first`, is to this thread.
    ///
    /// The initial PID namespace is the host's. In another one, the first process is a host of its own where it has the same
    /// root file system in another mount namespace, such as the systemd of a machine in a container; else it belongs to the
    /// same container or pod. `/proc/1/ns/mnt` may be unreadable; instead the root must be the same mount for both, because
    /// every namespace has mounts of its own.
    fn detect(initial: bool, first: &str) -> HostView {
        match roots(first) {
            Err(error) if initial => HostView::Unreadable(Arc::new(error)),
            Ok(Some((theirs, own))) if theirs.id == own.id => {
                if initial {
                    HostView::Same
                } else {
                    HostView::Container
                }
            }
            Ok(Some((theirs, own))) if initial || is_same_root(&theirs, &own) => {
                HostView::Process(first.to_owned())
            }
            Ok(None) if initial => HostView::Process(first.to_owned()),
            Ok(_) | Err(_) => HostView::Container,
        }
    }
}

/// Returns whether `/` is the host's root file system, in any mount namespace: in a container it is not.
pub(crate) fn on_root_of_host() -> bool {
    initial_pid_namespace()
        && roots(FIRST_PROCESS)
            .is_ok_and(|roots| roots.is_some_and(|(theirs, own)| is_same_root(&theirs, &own)))
}

fn initial_pid_namespace() -> bool {
    // What cannot be read is taken for the one in which more is asked for.
    std::fs::metadata("/proc/self/ns/pid").map_or(true, |namespace| namespace.ino() == INITIAL_PID_NAMESPACE)
}

/// Returns what is mounted at `/` for a process and for this thread; `None` in a chroot that is no mount.
fn roots(process: &str) -> Result<Option<(Mount, Mount)>, TableError> {
    let root = |process| -> Result<Option<Mount>, TableError> {
        Ok(MountTable::read_of(process)?.holding(Path::new("/")).cloned())
    };
    Ok(root(process)?.zip(root("thread-self")?))
}

fn is_same_root(one: &Mount, other: &Mount) -> bool {
    one.device == other.device && one.root == other.root
}

fn holder_of(path: &Path, directory: &Path) -> Result<Mount, VisibilityError> {
    let holder = holding(directory).map_err(|source| VisibilityError::Table {
        path: path.to_owned(),
        source,
    })?;
    holder.ok_or_else(|| VisibilityError::NoHolder(path.to_owned()))
}

/// Returns where a directory lies in the file system of the mount that holds it.
fn place_in_file_system(holder: &Mount, directory: &Path) -> PathBuf {
    let below = directory.strip_prefix(&holder.point).unwrap_or(Path::new(""));
    holder.root.join(below)
}
