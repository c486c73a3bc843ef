//! The id of the boot of this machine.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use uuid::Uuid;

/// Where the kernel writes the id of this boot.
pub(crate) const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the id of a boot of the machine, which Flocker's agent reports as its era, from a file as the kernel writes it.
///
/// # Errors
/// The file cannot be read, or does not hold a UUID.
pub(crate) fn boot_id(file: &Path) -> io::Result<Uuid> {
    let text = fs::read_to_string(file)?;
    text.trim()
        .parse()
        .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}
