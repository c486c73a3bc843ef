//! The node that Flocker named last, in a file, for a start without Flocker.

use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};
use host_fs::durable::{make_directory, replace_file};
use host_fs::{Links, read_regular};

const FILE: &str = "node.json";
/// The largest file in bytes that is read.
const LARGEST: u64 = 4 << 10;

/// A node, and the boot in which Flocker named it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct SavedNode {
    node: Uuid,
    boot_id: Uuid,
}

impl SavedNode {
    pub(super) fn new(node: Uuid, boot_id: Uuid) -> Self {
        Self { node, boot_id }
    }

    pub(super) fn node(self) -> Uuid {
        self.node
    }

    /// Returns the node if Flocker has named it since this machine was started.
    pub(super) fn of_boot(self, boot_id: Uuid) -> Option<Uuid> {
        (self.boot_id == boot_id).then_some(self.node)
    }

    /// Reads the file. One that cannot be read or parsed counts as missing.
    pub(super) fn read(state_dir: &Path) -> Option<Self> {
        let text = read_regular(&state_dir.join(FILE), LARGEST, Links::Refuse).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn write(self, state_dir: &Path) -> Result<()> {
        if Self::read(state_dir) == Some(self) {
            return Ok(());
        }
        let file = state_dir.join(FILE);
        let write = || {
            make_directory(state_dir)?;
            replace_file(&file, &serde_json::to_vec(&self)?)
        };
        write().map_err(|error: std::io::Error| Error::internal(format!("write {}", file.display()), error))
    }
}
