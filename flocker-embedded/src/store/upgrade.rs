//! Which file has the state, and the step from the file of earlier versions to the database.
//!
//! Earlier versions have one JSON file, `state.json`. It stays the state until its content is replaced by a text, in one
//! step; from then on the database is the state. An earlier version refuses that text, and says it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host_fs::durable::{replace_file, replace_file_with};
use host_fs::{Links, read_regular};
use openssl::sha::sha256;
use serde::Deserialize;
use uuid::Uuid;

use super::database::Database;
use super::edits::Edits;
use super::model::{Configuration, Dataset, Lease, Storage};
use super::records::Records;
use super::tables::{ClusterEntry, FORMAT};
use super::tag::TagSum;
use crate::Error;
use crate::data_dir::{DataDir, remove_unfinished};

/// The largest state file in bytes that is read: a million datasets.
const LARGEST: u64 = 1 << 30;
/// How many state files of earlier versions are kept.
const KEPT: u32 = 100;

/// The state file that says where the state is.
const NOTICE: &str = "\"The state of this data directory is in the file state.redb, which this version of flocker-csi cannot \
                      read: use the version that was used last. An earlier state may be in state.json.old; it lacks what has \
                      happened since.\"\n";

/// The state file of earlier versions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OldState {
    cluster: Uuid,
    nodes: Vec<Uuid>,
    configuration: OldConfiguration,
    attachments: BTreeMap<Uuid, Uuid>,
    /// The state files of the earliest versions lack it.
    #[serde(default)]
    storage: BTreeMap<Uuid, Storage>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OldConfiguration {
    datasets: BTreeMap<Uuid, Dataset>,
    leases: BTreeMap<Uuid, Lease>,
    registered: BTreeSet<Uuid>,
}

/// What a state file is.
#[derive(Debug)]
enum StateFile {
    /// It says that the state is in the database.
    Notice,
    /// It is the state of an earlier version.
    Old(Box<OldState>),
}

/// Makes sure that the database exists and is the state: makes a new one where nothing shows that there was a state, and
/// one of the state file of an earlier version. Each step can be interrupted, and the next start continues from there.
pub(super) fn prepare(data_dir: &DataDir) -> Result<(), Error> {
    let (state_file, database) = (data_dir.state_file(), data_dir.database());
    remove_unfinished(data_dir.root());
    let text = match read_regular(&state_file, LARGEST, Links::Refuse) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::file("read", &state_file)(error)),
    };
    let found = text
        .as_deref()
        .map(|text| decode(&state_file, text))
        .transpose()?;
    let has_database = match database.symlink_metadata() {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(Error::file("examine", &database)(error)),
    };
    match (found, has_database) {
        (Some(StateFile::Notice), true) => return Ok(()),
        (Some(StateFile::Notice), false) => {
            return Err(Error::LostState {
                path: database,
                found: state_file,
            });
        }
        // Nothing was done with it before the state file existed.
        (None, true) => check(&database)?,
        (None, false) => {
            data_dir.check_first_start()?;
            make_new(&database)?;
        }
        (Some(StateFile::Old(_)), true) => {
            let digest = text.as_deref().map(sha256).unwrap_or_default();
            if !is_untouched_copy(&database, &digest)? {
                return Err(Error::TwoStates { state_file, database });
            }
        }
        (Some(StateFile::Old(old)), false) => {
            let text = text.unwrap_or_default();
            keep(&state_file, &text)?;
            let volumes = data_dir.volume_ids()?;
            make_of(&database, *old, &sha256(&text), &volumes)?;
            tracing::info!(
                "The state of {} was copied into {}; the earlier file is kept",
                state_file.display(),
                database.display()
            );
        }
    }
    replace_file(&state_file, NOTICE.as_bytes()).map_err(Error::file("write", &state_file))
}

fn decode(path: &Path, text: &[u8]) -> Result<StateFile, Error> {
    if serde_json::from_slice::<String>(text).is_ok() {
        return Ok(StateFile::Notice);
    }
    let old = serde_json::from_slice(text).map(StateFile::Old);
    old.map_err(|source| Error::DamagedState {
        path: path.to_owned(),
        source: io::Error::new(ErrorKind::InvalidData, source),
    })
}

/// Opens the database and reports what is wrong with it.
pub(super) fn open(path: &Path) -> Result<Database, Error> {
    let opened = Database::open(path).and_then(|database| {
        let format = database.cluster()?.format;
        Ok((database, format))
    });
    match opened {
        Ok((database, FORMAT)) => Ok(database),
        Ok((_, format)) => Err(Error::LaterState {
            path: path.to_owned(),
            format,
        }),
        Err(error) => Err(Error::of_state("open", path, error)),
    }
}

fn check(path: &Path) -> Result<(), Error> {
    open(path).map(drop)
}

/// Whether the database was made of the state file with this digest, and has not been changed since: then that was
/// interrupted before the state file was replaced.
fn is_untouched_copy(path: &Path, digest: &[u8; 32]) -> Result<bool, Error> {
    let database = open(path)?;
    let is_copy = database
        .origin()
        .and_then(|origin| Ok(origin == digest && database.sequence()? == 0));
    is_copy.map_err(Error::file("read", path))
}

fn make_new(path: &Path) -> Result<(), Error> {
    let cluster = ClusterEntry {
        format: FORMAT,
        cluster: Uuid::new_v4(),
        nodes: Vec::new(),
    };
    let made = write_database(path, |file| {
        Database::write_new(file, &cluster, &[], |_| Ok(TagSum::default()))
    });
    made.map_err(Error::file("create", path))
}

/// Makes the database of an earlier state. Deleted datasets are listed only if a file in the directory of the volumes shows
/// that they are not destroyed yet.
pub(super) fn make_of(
    path: &Path,
    old: OldState,
    digest: &[u8; 32],
    volumes: &BTreeSet<Uuid>,
) -> Result<(), Error> {
    let OldState {
        cluster,
        nodes,
        configuration: old,
        attachments,
        storage,
    } = old;
    // What an earlier version has recorded as a volume counts as formatted: it may have data.
    let formatted = Storage::Formatted { file_system: None };
    let registered = old.registered.iter().map(|id| (*id, formatted));
    let mut recorded: BTreeMap<_, _> = registered.chain(storage).collect();
    let is_destroyed =
        |id: &Uuid| old.datasets.get(id).is_none_or(|dataset| dataset.deleted) && !volumes.contains(id);
    recorded.retain(|id, _| !is_destroyed(id));
    let undestroyed: Vec<_> = old
        .datasets
        .iter()
        .filter(|(id, dataset)| dataset.deleted && volumes.contains(id))
        .map(|(id, _)| *id)
        .collect();
    let edits = Edits {
        datasets: old
            .datasets
            .into_iter()
            .map(|(id, dataset)| (id, Arc::new(dataset)))
            .collect(),
        leases: old
            .leases
            .into_iter()
            .map(|(id, lease)| (id, Some(lease)))
            .collect(),
        registered: old.registered,
        attachments: attachments
            .into_iter()
            .map(|(id, node)| (id, Some(node)))
            .collect(),
        storage: recorded
            .into_iter()
            .map(|(id, storage)| (id, Some(storage)))
            .collect(),
        ..Edits::default()
    };
    let mut records = Records::new(cluster, nodes);
    let entry = ClusterEntry {
        format: FORMAT,
        cluster,
        nodes: records.nodes.clone(),
    };
    let made = write_database(path, |file| {
        Database::write_new(file, &entry, digest, |writing| {
            edits.carry_out(&mut Configuration::default(), &mut records, 0)?;
            writing.change(&edits, &records, None)?;
            undestroyed.iter().try_for_each(|id| writing.list(*id))?;
            Ok(records.sum)
        })
    });
    made.map_err(Error::file("create", path))
}

/// Makes a file that has its name only when it is complete and on disk.
fn write_database(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    replace_file_with(path, 0o600, |file| write(file))
}

/// Keeps a copy of the state file of an earlier version beside it, and replaces no other.
fn keep(state_file: &Path, text: &[u8]) -> Result<(), Error> {
    for number in 1..=KEPT {
        let kept = kept_name(state_file, number);
        match read_regular(&kept, LARGEST, Links::Refuse) {
            Ok(earlier) if earlier == text => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return replace_file(&kept, text).map_err(Error::file("write", &kept));
            }
            Ok(_) | Err(_) => {}
        }
    }
    let full = io::Error::other("there are too many of them; remove those that are not needed");
    Err(Error::file("keep a copy of", state_file)(full))
}

fn kept_name(state_file: &Path, number: u32) -> PathBuf {
    let mut name = state_file.as_os_str().to_owned();
    name.push(".old");
    if number > 1 {
        name.push(format!(".{number}"));
    }
    PathBuf::from(name)
}
