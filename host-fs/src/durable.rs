//! Files that survive a crash of the process and of the machine, whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use tempfile::NamedTempFile;

use crate::removal::remove_name;

/// The start of the name of a file that is being written, and how many letters and digits follow.
const UNFINISHED: &str = ".new-";
const RANDOM: usize = 6;

/// Makes a directory for root alone with everything above it, so that a crash of the machine does not undo it.
///
/// # Errors
/// The file system refused.
pub fn make_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Replaces a file, so that after any crash it holds either the earlier or the new content, and keeps that. Only its
/// owner may read and write it.
///
/// # Errors
/// The file system refused; then the file is as it was.
pub fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    replace_file_with(path, 0o600, |file| file.write_all(content))
}

/// As [`replace_file`], with this mode less the umask, and the content that `write` gives a new file.
///
/// # Errors
/// `write` failed, or the file system refused; then the file is as it was.
pub fn replace_file_with(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    let directory = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut file = unfinished_in(directory, mode)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync_directory(directory)
}

/// The largest file in bytes that is overwritten in place.
const LARGEST_IN_PLACE: usize = 1 << 20;

/// Replaces the content of an existing file in place, padded to its length with spaces, for a disk on which
/// [`replace_file`] finds no free block.
///
/// The length of the file stays, so no block is needed on a file system that overwrites. After a power cut the file may
/// hold parts of both contents; the end of the process does not interrupt the write.
///
/// # Errors
/// The content is longer than the file, or the file system refused.
pub fn overwrite_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    let found = file.metadata()?;
    let length = usize::try_from(found.len()).unwrap_or(usize::MAX);
    if !found.is_file() || length > LARGEST_IN_PLACE {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            "another program has put something else in its place",
        ));
    }
    if content.len() > length {
        return Err(ErrorKind::StorageFull.into());
    }
    let mut padded = vec![b' '; length];
    for (to, from) in padded.iter_mut().zip(content) {
        *to = *from;
    }
    file.write_all_at(&padded, 0)?;
    file.sync_all()
}

/// Gives a file another name in its directory permanently, unless the name is in use.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] if it is; else the file system refused. Then the file has its earlier name, unless only
/// the directory could not be written to disk.
pub fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?;
    sync_directory(to.parent().unwrap_or(Path::new(".")))
}

/// Removes a file permanently; one that does not exist is removed already.
///
/// # Errors
/// The file system refused.
pub fn remove_file(path: &Path) -> io::Result<()> {
    if remove_name(path)? {
        sync_directory(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Returns whether a file is one that a process is writing, or did not finish writing because it was killed.
pub fn is_unfinished(name: &str) -> bool {
    let random = name.strip_prefix(UNFINISHED);
    random.is_some_and(|random| random.len() == RANDOM && random.bytes().all(|c| c.is_ascii_alphanumeric()))
}

/// Removes the files in a directory that processes were writing when they were killed.
///
/// Several processes may use the directory: the process that writes a file holds its lock, and then it stays. A
/// directory that does not exist holds none.
///
/// # Errors
/// The directory cannot be listed, or the first entry that cannot be removed, with its name; the others are removed.
pub fn remove_unfinished(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut outcome = Ok(());
    for entry in entries {
        let entry = entry?;
        if !is_unfinished(&entry.file_name().to_string_lossy()) {
            continue;
        }
        let removed = entry.file_type().and_then(|kind| {
            if kind.is_file() {
                remove_abandoned(&entry.path()).map(drop)
            } else {
                Err(io::Error::new(
                    ErrorKind::InvalidData,
                    "it is not a regular file, so no process left it unfinished",
                ))
            }
        });
        match removed {
            // Its writer has finished it, or another process has removed it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if outcome.is_ok() => {
                let text = format!("{}: {error}", entry.path().display());
                outcome = Err(io::Error::new(error.kind(), text));
            }
            _ => {}
        }
    }
    outcome
}

/// Removes a file that [`is_unfinished`], and returns whether it did: not while a process writes it.
///
/// # Errors
/// The file system refused.
pub fn remove_abandoned(path: &Path) -> io::Result<bool> {
    match lock_abandoned(path)? {
        Some(_locked) => fs::remove_file(path).map(|()| true),
        None => Ok(false),
    }
}

/// Whether no process writes a file that [`is_unfinished`].
///
/// # Errors
/// The file system refused.
pub fn is_abandoned(path: &Path) -> io::Result<bool> {
    Ok(lock_abandoned(path)?.is_some())
}

/// Locks an unfinished file, unless a process writes it.
fn lock_abandoned(path: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(()) => Ok(Some(file)),
    }
}

/// Makes a file in a directory that stays as long as this process writes it.
fn unfinished_in(directory: &Path, mode: u32) -> io::Result<NamedTempFile> {
    loop {
        let file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .rand_bytes(RANDOM)
            .permissions(Permissions::from_mode(mode))
            .tempfile_in(directory)?;
        flock(file.as_file(), FlockOperation::LockExclusive)?;
        // Before it was locked, another process may have taken it for one that no process writes.
        if file.as_file().metadata()?.nlink() > 0 {
            return Ok(file);
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_a_file_leaves_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_on_a_full_disk_is_overwritten_in_place_within_its_length() {
        crate::mount::testing::in_own_namespace(|scratch| {
            let disk = scratch.join("disk");
            crate::mount::testing::tmpfs(&disk);
            let path = disk.join("file");
            replace_file(&path, &[b'1'; 512]).unwrap();
            rustix::mount::mount_remount(&disk, rustix::mount::MountFlags::empty(), "size=64k").unwrap();
            fs::write(disk.join("filler"), vec![0; 256 << 10]).unwrap_err();
            assert_eq!(
                replace_file(&path, &[b'2'; 512]).unwrap_err().kind(),
                ErrorKind::StorageFull
            );
            assert_eq!(fs::read(&path).unwrap(), [b'1'; 512]);
            overwrite_file(&path, b"2").unwrap();
            let found = fs::read(&path).unwrap();
            assert_eq!((found.len(), found.trim_ascii()), (512, &b"2"[..]));
            overwrite_file(&path, &[b'3'; 513]).unwrap_err();
            overwrite_file(&disk.join("missing"), b"").unwrap_err();
        });
    }

    #[test]
    fn a_file_is_renamed_unless_the_name_is_in_use() {
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        fs::write(&one, "one").unwrap();
        rename_new(&one, &two).unwrap();
        assert!(!one.exists());
        fs::write(&one, "other").unwrap();
        assert_eq!(
            rename_new(&one, &two).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&two).unwrap(), b"one");
    }

    #[test]
    fn a_file_has_its_mode_and_stays_when_writing_fails() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        replace_file_with(&path, 0o640, |file| file.set_len(1 << 20)).unwrap();
        let failed = replace_file_with(&path, 0o600, |file| {
            file.write_all(b"half")?;
            Err(ErrorKind::StorageFull.into())
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::StorageFull);
        let found = path.metadata().unwrap();
        assert_eq!(
            (found.len(), found.permissions().mode() & 0o777),
            (1 << 20, 0o640)
        );
        replace_file(&path, b"secret").unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_killed_processes_did_not_finish_is_removed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| root.path().join(name);
        let others = [
            "node.json",
            ".new-abcde",
            ".new-abcdefg",
            ".new-abc.ef",
            "new-abcdef",
        ];
        for name in others.iter().chain(&[".new-abcdef", ".new-0aZ9xy"]) {
            fs::write(file(name), "").unwrap();
        }
        fs::create_dir(file(".new-folder")).unwrap();
        std::os::unix::fs::symlink(file("node.json"), file(".new-linked")).unwrap();
        let refused = remove_unfinished(root.path()).unwrap_err();
        assert!(refused.to_string().contains("not a regular file"), "{refused}");
        let mut left: Vec<_> = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = [&others[..], &[".new-folder", ".new-linked"]].concat();
        expected.sort_unstable();
        assert_eq!(left, expected);
        remove_unfinished(&file("missing")).unwrap();
    }

    #[test]
    fn a_file_that_a_process_writes_is_not_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut writing = unfinished_in(root.path(), 0o600).unwrap();
        remove_unfinished(root.path()).unwrap();
        writing.write_all(b"content").unwrap();
        writing.persist(root.path().join("file")).unwrap();
        assert_eq!(fs::read(root.path().join("file")).unwrap(), b"content");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_are_replaced_while_what_is_unfinished_is_removed_all_the_time() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("file");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    remove_unfinished(root.path()).unwrap();
                }
            });
            let written = (0..200).map(|round| replace_file(&path, &[round; 9]));
            let written: io::Result<Vec<()>> = written.collect();
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            written.unwrap();
        });
        assert_eq!(fs::read(&path).unwrap(), [199; 9]);
    }
}
