//! Output for the user who starts the process, apart from the log.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a line to stdout at once, as its reader may wait for it. A closed stdout is no error.
pub fn announce(line: impl Display) {
    let mut stdout = io::stdout().lock();
    if let Err(error) = writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "Cannot write to standard output");
    }
}

/// Prints a problem or a remark to stderr. A closed stderr is no error.
pub fn remark(line: impl Display) {
    // There is no other place to report to.
    writeln!(io::stderr().lock(), "flocker-csi: {line}").ok();
}
