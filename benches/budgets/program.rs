//! The size of the program.

use std::fs;
use std::path::Path;

use crate::Result;
use crate::report::{Budget, Section, Table};
use crate::samples::digits;

/// The measured program, of the same build.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_flocker-csi");

const LIMIT_MIB: f64 = 15.0;

/// Measures the file.
pub(crate) fn measure() -> Result<Section> {
    let kib = u32::try_from(fs::metadata(Path::new(PROGRAM))?.len() / 1024)?;
    let mib = f64::from(kib) / 1024.0;
    let measured = format!("{} MiB", digits(mib));
    let mut table = Table::new(["", "size"]);
    table.row(["flocker-csi, stripped, OpenSSL linked in", &measured]);
    Ok(Section {
        title: "Program",
        budgets: vec![Budget {
            what: "release binary".to_owned(),
            limit: format!("≤ {LIMIT_MIB} MiB"),
            measured,
            used: mib / LIMIT_MIB,
        }],
        tables: vec![table],
    })
}
