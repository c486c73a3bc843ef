//! The plugin on its nodes: real sockets, an embedded Flocker, real file systems.

mod abandoned;
mod agent_view;
mod cancellation;
mod leases;
mod life;
mod made_directories;
pub(crate) mod paths;
mod refusals;
mod repeats;
mod secrets;
mod single_writer;
mod state_dir;
mod stats;
mod two_plugins;
mod unreadable;
mod views;

use std::path::Path;

use csi_proto::v1::volume_capability::access_mode::Mode;
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::csi::{Csi, Usage};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::{Machine, Running};

/// A Flocker of several nodes and a plugin on the first of them.
pub(crate) struct Fixture {
    pub(crate) flocker: Flocker,
    pub(crate) machine: Machine,
    pub(crate) plugin: Running,
}

impl Fixture {
    pub(crate) async fn start(nodes: usize) -> Self {
        let flocker = Flocker::start(nodes).await;
        Self::on(Machine::new(&flocker, 1), flocker).await
    }

    pub(crate) async fn on(machine: Machine, flocker: Flocker) -> Self {
        let plugin = machine.plugin().await;
        Self {
            flocker,
            machine,
            plugin,
        }
    }

    pub(crate) fn csi(&self) -> &Csi {
        &self.plugin.csi
    }

    /// Creates a volume and attaches it to the first node.
    pub(crate) async fn attached(&self, name: &str) -> Usage {
        let volume = self.csi().create(name).await;
        let context = self.csi().attach(volume, self.machine.node()).await;
        self.machine.usage(name, volume, &context)
    }

    pub(crate) async fn staged(&self, name: &str) -> Usage {
        let usage = self.attached(name).await;
        self.csi().stage(&usage).await.unwrap();
        usage
    }

    pub(crate) async fn published(&self, name: &str) -> Usage {
        let usage = self.staged(name).await;
        self.csi().publish(&usage).await.unwrap();
        usage
    }
}

impl Usage {
    /// The same volume at another target.
    pub(crate) fn at_target(&self, name: &str) -> Self {
        Self {
            target: self.target.with_file_name(name),
            ..self.clone()
        }
    }

    pub(crate) fn with_mode(&self, mode: Mode) -> Self {
        Self {
            capability: crate::support::csi::capability(mode),
            ..self.clone()
        }
    }

    pub(crate) fn read_only(&self) -> Self {
        Self {
            readonly: true,
            ..self.clone()
        }
    }
}

/// Checks that a call was refused with that code, and that the message has all these parts.
#[track_caller]
pub(crate) fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, parts: &[&str]) {
    let refused = answer.unwrap_err();
    assert_eq!(refused.code(), code, "{}", refused.message());
    for part in parts {
        assert!(
            refused.message().contains(part),
            "{part:?} in {:?}",
            refused.message()
        );
    }
}

/// Unmounts Flocker's own mount, as its agent would.
pub(crate) fn agent_unmounts(path: &Path) -> Result<(), Errno> {
    unmount(path, UnmountFlags::empty())
}

/// Waits until Flocker's agent can unmount its mount: a process that reads open files keeps it busy for a moment.
pub(crate) async fn wait_until_agent_unmounts(path: &Path) {
    eventually("the agent may have the volume", async || {
        agent_unmounts(path).ok()
    })
    .await;
}

/// Returns the id of no volume.
pub(crate) fn unknown_id() -> Uuid {
    Uuid::new_v4()
}
