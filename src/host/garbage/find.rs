//! Finding what may be left.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use host_fs::durable::is_unfinished;
use uuid::Uuid;

use super::identity::Identity;
use super::{Garbage, GarbageKind};
use crate::host::local_view::LocalView;
use crate::host::mount::alias_path;
use crate::host::records::{self, Record, dataset_in_name};
use crate::host::state_dir;
use crate::volume::dataset_of;

/// How far below a directory stagings are searched for.
const DEPTH: usize = 8;

/// Returns what may be left, ordered by kind and path, and what could not be listed. Nothing of it is known to be unused.
///
/// Directories of volumes without a record are searched for below `staging_roots`.
pub(crate) fn find(view: &LocalView, staging_roots: &[PathBuf]) -> (Vec<Garbage>, Vec<String>) {
    let mut search = Search {
        view,
        unreadable: view
            .unreadable_records()
            .iter()
            .map(|error| dataset_in_name(error.path()))
            .collect(),
        found: Vec::new(),
        problems: Vec::new(),
    };
    search.unfinished_files();
    search.records();
    search.notes();
    search.device_nodes();
    for root in staging_roots {
        search.stagings(root);
    }
    let Search {
        mut found, problems, ..
    } = search;
    found.sort_by(|a, b| (a.kind, &a.path).cmp(&(b.kind, &b.path)));
    found.dedup_by(|later, earlier| later.path == earlier.path);
    (found, problems)
}

struct Search<'a> {
    view: &'a LocalView,
    /// The volumes of records that cannot be read; `None` is any volume.
    unreadable: BTreeSet<Option<Uuid>>,
    found: Vec<Garbage>,
    problems: Vec<String>,
}

impl Search<'_> {
    fn unfinished_files(&mut self) {
        let state_dir = &self.view.directories().state_dir;
        for directory in [state_dir.clone(), state_dir::stages(state_dir)] {
            for entry in self.list(&directory) {
                let is_unfinished = entry.file_name().to_str().is_some_and(is_unfinished);
                if is_unfinished && entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    self.add(GarbageKind::UnfinishedFile, &entry.path(), None, &[]);
                }
            }
        }
    }

    fn records(&mut self) {
        let stages = state_dir::stages(&self.view.directories().state_dir);
        for record in self.view.records() {
            let dataset = Some(record.dataset_id);
            let records = std::slice::from_ref(record);
            self.add(
                GarbageKind::Record,
                &records::path_in(&stages, record),
                dataset,
                records,
            );
            let alias = alias_path(&record.staging_path, record.dataset_id);
            if is_empty_directory(&alias) {
                self.add(GarbageKind::Directory, &alias, dataset, records);
            }
        }
    }

    /// Finds the directories that an undo could not remove. Those that a record still names are the plugin's to remove.
    fn notes(&mut self) {
        for entry in self.list(&state_dir::leftovers(&self.view.directories().state_dir)) {
            let name = entry.file_name();
            let dataset = name.to_str().and_then(|name| dataset_of(name.split_once('.')?.0));
            let (Some(dataset), Ok(directory)) = (dataset, fs::read_link(entry.path())) else {
                continue;
            };
            if self.is_protected(dataset) || !self.view.records_of(dataset).is_empty() {
                continue;
            }
            match fs::symlink_metadata(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.add(GarbageKind::Note, &entry.path(), Some(dataset), &[]);
                }
                Ok(_) if is_empty_directory(&directory) => {
                    self.add(GarbageKind::Directory, &directory, Some(dataset), &[]);
                    if let Some(added) = self.found.last_mut() {
                        added.note = Some(entry.path());
                    }
                }
                _ => {}
            }
        }
    }

    fn device_nodes(&mut self) {
        for entry in self.list(&self.view.directories().device_dir) {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let (kind, id) = match name.strip_prefix('.') {
                Some(id) => (GarbageKind::UnfinishedFile, id),
                None => (GarbageKind::DeviceNode, name),
            };
            let is_device = entry.file_type().is_ok_and(|kind| kind.is_block_device());
            let Some(dataset) = dataset_of(id).filter(|_| is_device) else {
                continue;
            };
            if kind == GarbageKind::UnfinishedFile {
                self.add(kind, &entry.path(), Some(dataset), &[]);
            } else if !self.is_protected(dataset) {
                let records = self.view.records_of(dataset);
                self.add(kind, &entry.path(), Some(dataset), records);
            }
        }
    }

    /// Finds the empty directories below `root` that are named like a volume.
    fn stagings(&mut self, root: &Path) {
        let Ok(device) = fs::symlink_metadata(root).map(|root| root.dev()) else {
            self.problems
                .push(format!("{} cannot be searched", root.display()));
            return;
        };
        let mut directories = vec![(root.to_owned(), 0)];
        while let Some((directory, depth)) = directories.pop() {
            for entry in self.list(&directory) {
                // Neither a link nor what is mounted.
                let is_inside = |entry: &DirEntry| {
                    let found = fs::symlink_metadata(entry.path()).ok()?;
                    Some(found.is_dir() && found.dev() == device)
                };
                if !is_inside(&entry).unwrap_or(false) {
                    continue;
                }
                let dataset = entry.file_name().to_str().and_then(dataset_of);
                match dataset {
                    Some(dataset) if is_empty_directory(&entry.path()) && !self.is_protected(dataset) => {
                        let records = self.view.records_of(dataset);
                        self.add(GarbageKind::Directory, &entry.path(), Some(dataset), records);
                    }
                    _ if depth < DEPTH => directories.push((entry.path(), depth + 1)),
                    _ => {}
                }
            }
        }
    }

    /// Whether a record that cannot be read may be the volume's.
    fn is_protected(&self, dataset: Uuid) -> bool {
        self.unreadable.contains(&None) || self.unreadable.contains(&Some(dataset))
    }

    fn add(&mut self, kind: GarbageKind, path: &Path, dataset: Option<Uuid>, records: &[Record]) {
        match Identity::of(path) {
            Ok(identity) => self.found.push(Garbage {
                kind,
                path: path.to_owned(),
                dataset,
                records: records.to_vec(),
                note: None,
                identity,
            }),
            // It was removed at this moment.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self
                .problems
                .push(format!("cannot examine {}: {error}", path.display())),
        }
    }

    fn list(&mut self, directory: &Path) -> Vec<DirEntry> {
        match fs::read_dir(directory) {
            Ok(entries) => entries.flatten().collect(),
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                self.problems
                    .push(format!("cannot list {}: {error}", directory.display()));
                Vec::new()
            }
        }
    }
}

pub(super) fn is_empty_directory(path: &Path) -> bool {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    is_directory && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
