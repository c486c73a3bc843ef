//! The files of staging records.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use host_fs::{Links, read_regular};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::{RecordError, io_error};
use super::unreadable::is_set_aside;
use super::{Record, VERSION};

/// The versions that this release reads. Version 1 does not name the node, and neither 1 nor 2 the volume, the device of
/// a mount or the directories that were made.
const READ: std::ops::RangeInclusive<u64> = 1..=VERSION as u64;

/// The largest record in bytes that is read: a path has at most 4 KiB, and six times that where each byte is escaped.
const LARGEST: u64 = 256 << 10;
/// The minimum number of spaces at the end of a file, so that every state fits when the file is overwritten in place.
const ROOM: usize = 16;
/// The length of a file is a multiple of this.
const BLOCK: usize = 512;

/// The content of a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<R> {
    version: u32,
    record: R,
}

/// Returns the name of the file of a record, with a digest of the path, which may be long and hold any byte.
pub(super) fn file_name(dataset_id: Uuid, staging_path: &Path) -> String {
    format!("{dataset_id}-{}.json", digest_of(staging_path))
}

/// Returns the part of a file name that stands for a path.
pub(in crate::host) fn digest_of(path: &Path) -> String {
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let short = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
    format!("{short:016x}")
}

/// Reads all records in a directory, and changes nothing. Files that cannot be read are returned as errors that name them.
///
/// Another process may be changing them: a record that is removed at this moment is left out.
pub(crate) fn read_all(directory: &Path) -> Result<(Vec<Record>, Vec<RecordError>), RecordError> {
    let (mut records, mut damaged) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory).map_err(io_error("list", directory))? {
        let path = entry.map_err(io_error("list", directory))?.path();
        if is_set_aside(&path) {
            damaged.push(RecordError::SetAside { path });
        } else if path.extension().is_some_and(|extension| extension == "json") {
            match read(&path) {
                Ok(record) => records.push(record),
                Err(error) if error.is_missing() => {}
                Err(error) => damaged.push(error),
            }
        }
    }
    Ok((records, damaged))
}

/// Returns the path of the file of a record.
pub(crate) fn path_in(directory: &Path, record: &Record) -> PathBuf {
    directory.join(file_name(record.dataset_id, &record.staging_path))
}

/// Returns when the record of a dataset and staging path was written last, if the file system says.
pub(crate) fn written_at(directory: &Path, record: &Record) -> Option<SystemTime> {
    fs::symlink_metadata(path_in(directory, record))
        .ok()?
        .modified()
        .ok()
}

/// Reads the file `path`.
pub(super) fn read(path: &Path) -> Result<Record, RecordError> {
    let text = read_regular(path, LARGEST, Links::Refuse).map_err(io_error("read", path))?;
    let record = parse(&text, path)?;
    let name = file_name(record.dataset_id, &record.staging_path);
    if path.file_name().is_some_and(|found| found == name.as_str()) {
        Ok(record)
    } else {
        Err(RecordError::Misplaced {
            path: path.to_owned(),
        })
    }
}

/// Parses the text of the file `path`.
pub(super) fn parse(text: &[u8], path: &Path) -> Result<Record, RecordError> {
    let damaged = |source| RecordError::Damaged {
        path: path.to_owned(),
        source,
    };
    // The version first: the fields of a document of another version are unknown to this release.
    let document: serde_json::Value = serde_json::from_slice(text).map_err(damaged)?;
    match document.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if !READ.contains(&version) => {
            return Err(RecordError::Version {
                path: path.to_owned(),
                version,
            });
        }
        _ => {}
    }
    let Document { record, .. }: Document<Record> = serde_json::from_value(document).map_err(damaged)?;
    Ok(record)
}

/// Returns the text of the file of a record, with room for a longer state.
pub(super) fn render(record: &Record) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(&Document {
        version: VERSION,
        record,
    })?;
    text.push(b'\n');
    text.resize((text.len() + ROOM).next_multiple_of(BLOCK), b' ');
    Ok(text)
}
