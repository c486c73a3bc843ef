//! Prints the mounts of this mount namespace, or what is mounted at a path with the processes that keep it busy.
//!
//! ```text
//! cargo run -p host-fs --example mounts
//! cargo run -p host-fs --example mounts -- /home
//! ```

use std::error::Error;
use std::io::Write;

use host_fs::mount::{MountTable, find_holders, holding, layers_at};

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let Some(path) = std::env::args_os().nth(1) else {
        for mount in MountTable::read()?.mounts() {
            writeln!(out, "{mount}")?;
        }
        return Ok(());
    };
    // The mount table has no symbolic links in its paths.
    let path = std::fs::canonicalize(path)?;
    let layers = layers_at(&path)?;
    let Some(visible) = layers.last() else {
        writeln!(out, "Nothing is mounted at {}", path.display())?;
        if let Some(holder) = holding(&path)? {
            writeln!(out, "It is held by {holder}")?;
        }
        return Ok(());
    };
    for mount in &layers {
        writeln!(out, "{mount}")?;
    }
    writeln!(out, "{}", find_holders(visible))?;
    Ok(())
}
