//! What writes the state, and the room on the disk that it keeps for that.

use std::io::{self, ErrorKind};
use std::path::Path;

use super::ballast::{Ballast, is_full};
use super::database::Database;
use super::records::Records;
use super::{Purpose, upgrade};
use crate::Error;

/// The database, what it has in memory beside the configuration, and the room that is kept for changes.
pub(super) struct Writer {
    pub(super) database: Database,
    pub(super) records: Records,
    ballast: Ballast,
    /// Whether the last change found the disk full, which is logged once.
    is_full: bool,
}

impl Writer {
    pub(super) fn new(database: Database, records: Records, ballast: Ballast) -> Self {
        Self {
            database,
            records,
            ballast,
            is_full: false,
        }
    }

    /// Makes the kept room whole again if that is possible. Fails if it is not and the change is for growth.
    pub(super) fn make_room(&mut self, purpose: Purpose) -> io::Result<()> {
        match self.ballast.restore() {
            Ok(()) => {
                self.is_full = false;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.log_full();
                match purpose {
                    Purpose::Upkeep => Ok(()),
                    Purpose::Growth => {
                        let text = "the file system of the data directory is full: what is left is kept for \
                                    deleting and detaching";
                        Err(io::Error::new(ErrorKind::StorageFull, text))
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "Cannot keep room for changes of the state on the disk");
                Ok(())
            }
        }
    }

    /// Frees a part of the kept room after a failure for lack of room; `false` if the reason is another, or none is left.
    pub(super) fn take_room(&mut self, error: &io::Error) -> io::Result<bool> {
        if !is_full(error) {
            return Ok(false);
        }
        self.log_full();
        self.ballast.release()
    }

    fn log_full(&mut self) {
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::error!(
                "The file system of the data directory is full. No dataset is created until there is room; datasets are \
                 deleted and detached with the room that is kept for that"
            );
        }
    }
}

/// Opens the database, which writes to it, with the room that is kept for that if there is no other.
pub(super) fn open_with(ballast: &Ballast, path: &Path) -> Result<Database, Error> {
    loop {
        match upgrade::open(path) {
            Err(Error::File { source, .. })
                if is_full(&source) && ballast.release().map_err(Error::file("free room for", path))? => {}
            opened => return opened,
        }
    }
}
