//! Counts its runs in a file that holds either the earlier or the new count after any crash, while no other process
//! uses the directory.
//!
//! ```text
//! cargo run -p host-fs --example counter -- /tmp/counter
//! ```

use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use host_fs::LockedDirectory;
use host_fs::durable::{remove_unfinished, replace_file};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: counter DIRECTORY")?);
    // The lock is held until this value is dropped, or the process ends.
    let _locked = LockedDirectory::claim(&directory)?;
    // What a killed process did not finish writing.
    remove_unfinished(&directory)?;
    let file = directory.join("count");
    let earlier: u64 = match std::fs::read_to_string(&file) {
        Ok(text) => text.trim().parse()?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error.into()),
    };
    let count = earlier.saturating_add(1);
    replace_file(&file, format!("{count}\n").as_bytes())?;
    writeln!(std::io::stdout(), "Run {count}")?;
    Ok(())
}
