//! What the commands print: a table, or a JSON document of a documented form.

use std::time::SystemTime;

use serde::Serialize;

use super::args::Format;
use super::table::{Table, colour};
use crate::commands::failure::Failure;
use crate::commands::stdout::{print, remark};

/// The version of the forms in `docs/schemas`. A change that a reader would misread raises it; new keys do not.
const VERSION: u32 = 1;

/// A document with the version of its form.
#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    #[serde(flatten)]
    document: &'a T,
}

/// Prints a document in the given format; `table` makes the table of it, `none` is said where that is empty.
///
/// # Errors
/// The standard output cannot be written.
pub(super) fn show<T: Serialize>(
    format: Format,
    document: &T,
    table: impl FnOnce(&T) -> Table,
    none: &str,
) -> Result<(), Failure> {
    match format {
        Format::Json => show_json(document),
        Format::Table => {
            let table = table(document);
            if table.is_empty() {
                remark(none);
                return Ok(());
            }
            print(&table.render(colour()))
        }
    }
}

/// Prints a document as JSON.
///
/// # Errors
/// The standard output cannot be written.
pub(super) fn show_json<T: Serialize>(document: &T) -> Result<(), Failure> {
    let document = Versioned {
        version: VERSION,
        document,
    };
    let text = serde_json::to_string_pretty(&document)
        .map_err(|error| Failure::context("write the output as JSON", &error))?;
    print(&format!("{text}\n"))
}

/// Returns a moment as output has it.
pub(super) fn moment(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string()
}
