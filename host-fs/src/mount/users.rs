//! Whether anything on the machine uses a file system beyond the mounts that the caller knows.
//!
//! Only what was seen to be unused counts as unused: a mount table that cannot be read may hold a use.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::io::Errno;

use super::entry::{Device, Mount};
use super::table::{MountTable, TableError};

/// How long a search may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The initial PID namespace, whose number is part of the kernel's interface. In another one, `/proc` does not show every
/// process of the machine.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A file system, and the mounts of it that do not count as a use.
#[derive(Debug, Clone, Default)]
pub struct FileSystemUse {
    /// Its device, if that is known.
    pub device: Option<Device>,
    /// The name of its device node; a node of this name that is bound anywhere is a use.
    pub node_name: OsString,
    /// Whether a mount of any device is a use if its source or its mount point ends in `node_name`.
    pub by_name: bool,
    /// Paths at which, and below which, a mount of any device is a use.
    pub paths: Vec<PathBuf>,
    /// The ids of those mounts of the calling thread's namespace that are no use. Their copies in other namespaces are none
    /// either, where they are unmounted with them.
    pub known: Vec<u64>,
}

/// Searches for uses, one search at a time, each in a thread of its own.
#[derive(Debug, Clone, Default)]
pub struct UseSearch {
    searching: Arc<AtomicBool>,
}

impl UseSearch {
    /// Returns what uses a file system, in words, or why that cannot be known; `None` if nothing does. Takes five seconds at
    /// most.
    ///
    /// A use is any other mount of its device, of its name or at its paths, in any mount namespace, its device node bound
    /// anywhere, and any process but the calling one that has opened or mapped a file of it, or the device. Every mount table
    /// has to be readable; the open files, which only a mount that was detached leaves behind, are searched where the kernel
    /// allows it.
    pub fn find(&self, subject: &FileSystemUse) -> Option<String> {
        if self.searching.swap(true, Ordering::SeqCst) {
            return Some("an earlier search for uses has not ended".to_owned());
        }
        let (found, answer) = mpsc::sync_channel(1);
        let (subject, searching) = (subject.clone(), Arc::clone(&self.searching));
        // Its own namespace is the one of the calling thread, whose `thread-self` it is not.
        let caller = MountTable::read().map(|own| (own, namespace_of("thread-self")));
        // A thread of its own: reading the memory map of a process that hangs may block indefinitely.
        let started = thread::Builder::new().name("uses".to_owned()).spawn(move || {
            let ended = search(&subject, caller);
            searching.store(false, Ordering::SeqCst);
            // The receiver stops waiting after a while.
            found.send(ended).ok();
        });
        if let Err(error) = started {
            self.searching.store(false, Ordering::SeqCst);
            return Some(format!("no thread can search for uses: {error}"));
        }
        answer.recv_timeout(PATIENCE).unwrap_or_else(|_elapsed| {
            Some(format!(
                "the search for uses has not ended within {} s; a process may hang",
                PATIENCE.as_secs()
            ))
        })
    }
}

type Caller = Result<(MountTable, io::Result<PathBuf>), TableError>;

fn search(subject: &FileSystemUse, caller: Caller) -> Option<String> {
    let (own, namespace) = match caller {
        Ok((own, Ok(namespace))) => (own, namespace),
        Ok((_, Err(error))) => return Some(format!("the mount namespace cannot be read: {error}")),
        Err(error) => return Some(error.to_string()),
    };
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link == Path::new(INITIAL_PID_NAMESPACE) => {}
        _ => {
            return Some(
                "not every process of this machine can be seen from this process's PID namespace".to_owned(),
            );
        }
    }
    let mut mounts = MountSearch::new(subject, &own, namespace);
    let processes = match fs::read_dir("/proc") {
        Ok(entries) => entries.flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.path()))
        }),
        Err(error) => return Some(format!("the processes of this machine cannot be listed: {error}")),
    };
    let processes: Vec<_> = processes.collect();
    for (pid, process) in &processes {
        let read = mounts.read(process).and_then(|()| {
            if *pid == std::process::id() {
                return Ok(None);
            }
            match open_files(process, subject.device) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
                found => found,
            }
        });
        match read {
            Ok(None) => {}
            Ok(Some(uses)) => return Some(format!("process {pid} ({}) has {uses}", name_of(process))),
            Err(error) => {
                return Some(format!(
                    "process {pid} ({}) cannot be read: {error}",
                    name_of(process)
                ));
            }
        }
    }
    mounts.first_use()
}

/// The mounts of a device in all mount namespaces.
struct MountSearch<'a> {
    subject: &'a FileSystemUse,
    /// The namespaces that have been read, with the root directory from which they were read.
    seen: HashSet<(PathBuf, PathBuf)>,
    known: Vec<Known>,
    /// Peer groups that receive the mounts of another one: theirs, and the group that they receive from.
    followers: Vec<(u64, u64)>,
    /// The mounts that are not known, as far as their place does not decide, with the process whose table has them.
    candidates: Vec<(Mount, Option<Place>, String)>,
}

/// Where a mount lies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    device: Device,
    path: PathBuf,
    peer_group: Option<u64>,
    receives_from: Option<u64>,
}

/// A mount that is no use.
struct Known {
    source: OsString,
    root: PathBuf,
    place: Place,
}

impl<'a> MountSearch<'a> {
    fn new(subject: &'a FileSystemUse, own: &MountTable, namespace: PathBuf) -> Self {
        let is_known = |mount: &&Mount| subject.known.contains(&mount.id);
        let known = own.mounts().iter().filter(is_known).filter_map(|mount| {
            Some(Known {
                source: mount.source.clone(),
                root: mount.root.clone(),
                place: place(own, mount)?,
            })
        });
        let mut search = Self {
            subject,
            seen: HashSet::new(),
            known: known.collect(),
            followers: Vec::new(),
            candidates: Vec::new(),
        };
        search.add(own, "this process");
        let root = fs::read_link("/proc/self/root").unwrap_or_else(|_| PathBuf::from("/"));
        search.seen.insert((namespace, root));
        search
    }

    /// Reads the mount tables that a process sees, unless they have been read.
    fn read(&mut self, process: &Path) -> io::Result<()> {
        let Some(threads) = unless_ended(fs::read_dir(process.join("task")))? else {
            return Ok(());
        };
        for thread in threads.flatten() {
            let thread = thread.path();
            let view = fs::read_link(thread.join("ns/mnt"))
                .and_then(|namespace| Ok((namespace, fs::read_link(thread.join("root"))?)));
            match view {
                Ok(view) if self.seen.contains(&view) => {}
                Ok(view) => {
                    if self.read_table(&thread)? {
                        self.seen.insert(view);
                    }
                }
                Err(error) if has_ended(&error) => {}
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    // Its table can be read, but not compared with those that have been read.
                    self.read_table(process)?;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the mount table of a process or thread, and returns whether that had not ended.
    fn read_table(&mut self, process: &Path) -> io::Result<bool> {
        let name = process
            .strip_prefix("/proc")
            .unwrap_or(process)
            .display()
            .to_string();
        match MountTable::read_of(&name) {
            Ok(table) => self.add(&table, &format!("process {name} ({})", name_of(process))),
            Err(TableError::Read { source, .. }) if has_ended(&source) => return Ok(false),
            Err(TableError::Read { source, .. }) => return Err(source),
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
        Ok(true)
    }

    fn add(&mut self, table: &MountTable, of: &str) {
        for mount in table.mounts() {
            if let (Some(group), Some(from)) = (mount.propagation.peer_group, mount.propagation.master) {
                self.followers.push((group, from));
            }
            let is_device = Some(mount.device) == self.subject.device;
            let is_node = !is_device && has_name(&mount.root, &self.subject.node_name);
            if is_node || self.is_use(mount, is_device) && !self.subject.known.contains(&mount.id) {
                // A device node is a use wherever it is bound.
                let place = if is_node { None } else { place(table, mount) };
                self.candidates.push((mount.clone(), place, of.to_owned()));
            }
        }
    }

    /// Whether a mount is a use unless it is known.
    fn is_use(&self, mount: &Mount, is_device: bool) -> bool {
        let FileSystemUse { node_name, paths, .. } = self.subject;
        let is_named = || has_name(Path::new(&mount.source), node_name) || has_name(&mount.point, node_name);
        is_device
            || self.subject.by_name && is_named()
            || paths.iter().any(|path| mount.point.starts_with(path))
    }

    /// Returns the first mount that is a use.
    fn first_use(&self) -> Option<String> {
        let of_use = |(mount, place, _): &&(Mount, Option<Place>, String)| {
            let is_copy = |known: &Known| {
                let place = place.as_ref()?;
                let same = (&mount.source, &mount.root, place.device, &place.path)
                    == (&known.source, &known.root, known.place.device, &known.place.path);
                Some(same && self.receives(place, known.place.peer_group?))
            };
            !self.known.iter().any(|known| is_copy(known).unwrap_or(false))
        };
        let (mount, _, of) = self.candidates.iter().find(of_use)?;
        Some(format!("{of} has {mount}"))
    }

    /// Whether a mount at this place is unmounted with the one that lies at the same place in `group`.
    fn receives(&self, place: &Place, group: u64) -> bool {
        let mut reached = vec![group];
        let mut next = 0;
        while let Some(group) = reached.get(next).copied() {
            if place.peer_group == Some(group) || place.receives_from == Some(group) {
                return true;
            }
            for (follower, from) in &self.followers {
                if *from == group && !reached.contains(follower) {
                    reached.push(*follower);
                }
            }
            next += 1;
        }
        false
    }
}

fn has_name(path: &Path, name: &OsStr) -> bool {
    path.file_name() == Some(name)
}

fn place(table: &MountTable, mount: &Mount) -> Option<Place> {
    let (device, path) = table.place(mount)?;
    let parent = table.by_id(mount.parent)?;
    Some(Place {
        device,
        path,
        peer_group: parent.propagation.peer_group,
        receives_from: parent.propagation.master,
    })
}

/// Returns what a process has open or mapped of the file system on a device, or the device itself.
fn open_files(process: &Path, device: Option<Device>) -> io::Result<Option<String>> {
    let Some(device) = device else {
        return Ok(None);
    };
    for (link, what) in [
        ("root", "its root directory"),
        ("cwd", "its working directory"),
        ("exe", "its program"),
    ] {
        if is_on(&process.join(link), device)? {
            return Ok(Some(format!("{what} there")));
        }
    }
    let Some(open) = unless_ended(fs::read_dir(process.join("fd")))? else {
        return Ok(None);
    };
    for file in open {
        let Some(file) = unless_ended(file)? else { continue };
        let file = file.path();
        if is_on(&file, device)? {
            let target = fs::read_link(&file).unwrap_or_default();
            return Ok(Some(format!("{} open", target.display())));
        }
    }
    let Some(maps) = unless_ended(fs::read(process.join("maps")))? else {
        return Ok(None);
    };
    let name = format!("{:02x}:{:02x}", device.major, device.minor);
    let mut lines = maps.split(|byte| *byte == b'\n');
    let mapped = lines.any(|line| line.split(|byte| *byte == b' ').nth(3) == Some(name.as_bytes()));
    Ok(mapped.then(|| "a file of it mapped into memory".to_owned()))
}

/// Whether a link of `/proc` leads to a file of the file system on a device, or to the device itself.
fn is_on(link: &Path, device: Device) -> io::Result<bool> {
    // From memory: a file system that hangs would not answer otherwise.
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let wanted = StatxFlags::TYPE | StatxFlags::INO;
    let Some(status) = unless_ended(statx(CWD, link, flags, wanted).map_err(io::Error::from))? else {
        return Ok(false);
    };
    let lies_on = Device {
        major: status.stx_dev_major,
        minor: status.stx_dev_minor,
    };
    let is = Device {
        major: status.stx_rdev_major,
        minor: status.stx_rdev_minor,
    };
    let is_block = FileType::from_raw_mode(status.stx_mode.into()) == FileType::BlockDevice;
    Ok(lies_on == device || is_block && is == device)
}

fn namespace_of(process: &str) -> io::Result<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt"))
}

fn name_of(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// Returns nothing for a process or a file that ended while it was read.
fn unless_ended<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if has_ended(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn has_ended(error: &io::Error) -> bool {
    // EINVAL is the answer about the mounts of a process that is ending.
    let errnos = [Errno::SRCH, Errno::INVAL].map(Errno::raw_os_error);
    error.kind() == ErrorKind::NotFound || error.raw_os_error().is_some_and(|code| errnos.contains(&code))
}

#[cfg(test)]
mod tests;
