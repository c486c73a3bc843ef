//! What is for whoever started the process; the log goes elsewhere.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line at once, for whoever waits for it; nobody need be reading.
pub fn announce(line: impl Display) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "Nobody reads the standard output");
    }
}

/// Tells a person what went wrong, or not as it may be expected, on stderr; nobody need be reading.
pub fn tell(line: impl Display) {
    // There is nobody left to tell.
    writeln!(io::stderr().lock(), "flocker-csi: {line}").ok();
}
