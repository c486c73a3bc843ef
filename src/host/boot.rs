//! The id of the boot of this machine.

use std::fs;
use std::io::{self, ErrorKind};

use uuid::Uuid;

/// Returns the id of this boot of the machine.
///
/// # Errors
/// `/proc` cannot be read, or holds no UUID where the kernel writes it.
pub(crate) fn boot_id() -> io::Result<Uuid> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}
