//! Parsing of staging records from arbitrary bytes.

use std::path::Path;

use super::file::{file_name, parse, render};

/// Reads any bytes as a staging record.
///
/// # Panics
/// If a parsed record is not the same after it is written and read again.
pub fn record(bytes: &[u8]) {
    let path = Path::new("records/any.json");
    match parse(bytes, path) {
        Ok(record) => {
            let written = render(&record).expect("what came from JSON can be written as JSON");
            let again = parse(&written, path).expect("this release can read what it writes");
            assert_eq!(again, record);
            let name = file_name(record.dataset_id, &record.staging_path);
            assert!(!name.contains('/') && name.len() < 64, "{name}");
        }
        Err(error) => assert!(error.to_string().contains("any.json"), "{error}"),
    }
}
