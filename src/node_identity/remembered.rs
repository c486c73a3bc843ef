//! The node that Flocker named last, for a start without Flocker.

use std::fs::DirBuilder;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

const FILE: &str = "node.json";

/// A node, and the boot in which Flocker named it.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Remembered {
    node: Uuid,
    boot_id: Uuid,
}

impl Remembered {
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

    /// Reads what is remembered; what cannot be read is as good as forgotten.
    pub(super) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(state_dir.join(FILE)).ok()?).ok()
    }

    pub(super) fn write(self, state_dir: &Path) -> Result<()> {
        if Self::read(state_dir) == Some(self) {
            return Ok(());
        }
        let doing = || format!("write {}", state_dir.join(FILE).display());
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
            let mut file = tempfile::NamedTempFile::new_in(state_dir)?;
            serde_json::to_writer(&mut file, &self)?;
            file.flush()?;
            file.as_file().sync_all()?;
            file.persist(state_dir.join(FILE)).map_err(std::io::Error::from)
        };
        write().map(drop).map_err(|error| Error::internal(doing(), error))
    }
}
