//! Output for the user who starts the process, apart from the log.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use crate::commands::failure::Failure;
use crate::telemetry::{Counters, Output, Remark};

/// How long the end of the process waits for readers of its output.
const LAST_WORDS: Duration = Duration::from_secs(1);

static STDOUT: OnceLock<Output> = OnceLock::new();
static STDERR: OnceLock<Output> = OnceLock::new();

/// Returns the standard error stream. The first call chooses the text about lost lines.
pub(super) fn stderr(remark: Remark) -> &'static Output {
    STDERR.get_or_init(|| Output::new(io::stderr().as_fd(), remark))
}

/// Counts lines of the log that are lost in this registry, if there is a log.
pub(super) fn count_losses_in(counters: &Counters) {
    if let Some(stderr) = STDERR.get() {
        stderr.count_losses_in(counters);
    }
}

/// Prints a line to stdout at once, as its reader may wait for it. A stdout that cannot be written is no error, and is not
/// waited for.
pub fn announce(line: impl Display) {
    let stdout = STDOUT.get_or_init(|| Output::new(io::stdout().as_fd(), lines_lost));
    stdout.write_line(format!("{line}\n").as_bytes());
}

/// Prints a remark to stderr, and waits for its reader: for commands that a user runs. A closed stderr is no error.
pub fn remark(line: impl Display) {
    // There is no other place to report to.
    writeln!(io::stderr().lock(), "flocker-csi: {line}").ok();
}

/// Prints why the process ends to stderr, which is not waited for.
pub fn last_words<L: Display>(lines: impl IntoIterator<Item = L>) {
    let stderr = stderr(lines_lost);
    for line in lines {
        stderr.write_line(format!("flocker-csi: {line}\n").as_bytes());
    }
}

/// Prints the result of a command, and waits for its reader. A reader that closes the stream early has read enough.
///
/// # Errors
/// The stream cannot be written.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::context("write to the standard output", &error))
        }
        _ => Ok(()),
    }
}

/// Makes a text that may contain parts of a file one line without control characters.
pub(crate) fn printable(text: &str) -> String {
    let printable = |character: char| {
        if character.is_control() {
            character.escape_default().to_string()
        } else {
            character.to_string()
        }
    };
    text.chars().map(printable).collect()
}

/// Waits a moment for what was printed and logged to be written, at the end of the process.
pub fn finish() {
    for output in [&STDOUT, &STDERR] {
        if let Some(output) = output.get() {
            output.flush(LAST_WORDS);
        }
    }
}

fn lines_lost(lost: u64) -> String {
    format!("flocker-csi: {lost} lines before this one were lost, because they could not be written")
}
