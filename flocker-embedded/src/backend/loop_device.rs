//! Loop devices, through the ioctls of loop(4) and what sysfs shows of them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

mod kernel;

pub(super) const LOOP_CONTROL: &str = "/dev/loop-control";
pub(super) const BLOCK_DEVICES: &str = "/sys/block";

/// What the kernel adds to the name of a file that has been removed.
const DELETED: &str = " (deleted)";

/// The name of a device without its number.
pub(super) const DEVICE: &str = "/dev/loop";
/// The attribute of a queue that says how much may be discarded in one request, in bytes.
const DISCARD_LIMIT: &str = "discard_max_bytes";

/// The unit of the size of a block device.
const SECTOR: u64 = 512;

/// How often another free device is requested when another process was faster to take the last one.
const FREE_DEVICE_ATTEMPTS: usize = 64;

/// All loop devices that have a backing file at one moment, also those that the kernel frees when their last mount
/// ends.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Devices by the name the kernel has for the file. It ends in ` (deleted)` if the file has lost its name.
    by_name: HashMap<PathBuf, PathBuf>,
    /// Devices by what identifies the file under any name.
    by_identity: HashMap<FileIdentity, PathBuf>,
    /// Pairs of devices that have one file.
    twice: Vec<(PathBuf, PathBuf)>,
    /// A device that could not be opened, so that it is unknown which file it has.
    unopened: Option<(PathBuf, io::Error)>,
}

/// The file system and the inode of a file.
type FileIdentity = (u64, u64);

impl Survey {
    pub(super) fn new() -> io::Result<Self> {
        Self::of_all_but(&HashMap::new())
    }

    /// As [`Self::new`], without opening the devices whose file has the name that is given here: a thousand take a while. The
    /// kernel names a file that was renamed or removed otherwise, so the file of that name is the device's.
    pub(super) fn of_all_but(known: &HashMap<PathBuf, PathBuf>) -> io::Result<Self> {
        let mut survey = Self::default();
        for entry in fs::read_dir(BLOCK_DEVICES)? {
            let name = entry?.file_name();
            if !name.as_bytes().starts_with(b"loop") {
                continue;
            }
            let device = Path::new("/dev").join(name);
            let Some(file) = backing_file(&device)? else {
                continue;
            };
            let is_known = known.get(&device) == Some(&file);
            if let Some(Ok(found)) = is_known.then(|| fs::metadata(&file)) {
                survey.add_identified(device, file, identity_of(&found));
            } else {
                let opened = open(&device);
                survey.add(device, file, opened);
            }
        }
        Ok(survey)
    }

    /// Adds a device by the name of its file, and by the identity of that file if the kernel returns it.
    ///
    /// Where the kernel does not, it cannot look the file up: the file system of the file has failed. This process
    /// can look its own files up, so that device has none of them.
    fn add(&mut self, device: PathBuf, file: PathBuf, opened: io::Result<Option<File>>) {
        match opened {
            Ok(opened) => {
                if let Some(identity) = opened.and_then(|device| identity(&device).ok().flatten()) {
                    return self.add_identified(device, file, identity);
                }
            }
            Err(error) => self.unopened = Some((device.clone(), error)),
        }
        self.by_name.insert(file, device);
    }

    /// Adds a device by the name and the identity of its file.
    fn add_identified(&mut self, device: PathBuf, file: PathBuf, identity: FileIdentity) {
        let other = self.by_identity.insert(identity, device.clone());
        self.twice.extend(other.map(|other| (other, device.clone())));
        self.by_name.insert(file, device);
    }

    /// Returns another device that has the same file as this one.
    pub(super) fn other_device(&self, device: &Path) -> Option<&Path> {
        let other = |(one, two): &'_ (PathBuf, PathBuf)| (one == device) || (two == device);
        let (one, two) = self.twice.iter().find(|pair| other(pair))?;
        Some(if one == device { two } else { one })
    }

    /// Returns a device that has a file which no longer has this name, or any.
    pub(super) fn device_of_deleted(&self, file: &Path) -> Option<&Path> {
        let mut name = file.as_os_str().to_owned();
        name.push(DELETED);
        self.by_name.get(Path::new(&name)).map(PathBuf::as_path)
    }

    /// Returns the device that has a file, under any name the file had when it was attached.
    ///
    /// Fails if no device is known to have it, but one could not be opened that may.
    pub(super) fn device_of(&self, file: &Path) -> io::Result<Option<&Path>> {
        if let Some(device) = self.by_name.get(file) {
            return Ok(Some(device));
        }
        let device = self.by_identity.get(&identity_of(&fs::metadata(file)?));
        match (device, &self.unopened) {
            (Some(device), _) => Ok(Some(device)),
            (None, None) => Ok(None),
            (None, Some((device, error))) => Err(io::Error::new(
                error.kind(),
                format!(
                    "it is unknown whether {} has the file, as the device cannot be opened: {error}",
                    device.display()
                ),
            )),
        }
    }
}

/// Returns whether a device has a file, under any name the file had when it was attached.
pub(super) fn has_file(device: &Path, file: &Path) -> io::Result<bool> {
    match backing_file(device)? {
        None => Ok(false),
        Some(name) if name == file => Ok(true),
        Some(_) => Ok(AttachedDevice::open(device, file)?.is_some()),
    }
}

/// A device that has the expected file, and keeps it at least as long as this exists.
///
/// A name such as `/dev/loop3` denotes the device of another file as soon as another process has freed it and
/// attached a file. While a descriptor is open the kernel neither frees the device nor attaches another file to it,
/// so what is verified on the descriptor stays true.
#[derive(Debug)]
pub(super) struct AttachedDevice(File);

impl AttachedDevice {
    /// Opens a device, and returns it if it has `file`, under any name the file had when it was attached.
    pub(super) fn open(device: &Path, file: &Path) -> io::Result<Option<Self>> {
        let expected = match fs::metadata(file) {
            Ok(file) => identity_of(&file),
            Err(error) => {
                let text = format!("its backing file {} cannot be found: {error}", file.display());
                return Err(io::Error::new(error.kind(), text));
            }
        };
        let Some(device) = open(device)? else {
            return Ok(None);
        };
        let has_file = identity(&device)? == Some(expected);
        Ok(has_file.then_some(Self(device)))
    }

    /// Requests that the kernel frees the device. It does so at once, or when the last mount ends and the last
    /// descriptor is closed.
    pub(super) fn clear(self) -> io::Result<()> {
        kernel::clear(&self.0)
    }
}

/// How a file is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    /// The logical block size of the device, in bytes.
    pub(super) block_size: u32,
    /// Whether reads and writes are to bypass the page cache of the file system that has the file. The kernel goes on
    /// without that where the file system cannot.
    pub(super) direct: bool,
}

/// Attaches a file to a free device, which it returns.
pub(super) fn attach(file: &File, attachment: Attachment) -> io::Result<PathBuf> {
    let control = open_control()?;
    for _ in 0..FREE_DEVICE_ATTEMPTS {
        let device = unused_device(&control)?;
        if attach_to(&device, file, attachment)? {
            return Ok(device);
        }
    }
    Err(io::Error::other(
        "other processes have taken every free loop device that was found",
    ))
}

/// Returns a device without a file, which accepts discards.
fn unused_device(control: &File) -> io::Result<PathBuf> {
    let device = device_path(kernel::free_device(control)?);
    if !refuses_discards(&device) {
        return Ok(device);
    }
    remove_if_refusing(&device);
    // A new one: the other free ones may refuse too, and another process may have this one open.
    Ok(device_path(kernel::add_device(control)?))
}

/// Attaches a file to any free device but one, as a machine does that has assigned new numbers to its devices.
pub(super) fn attach_to_another(file: &File, attachment: Attachment, former: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(BLOCK_DEVICES)? {
        let name = entry?.file_name();
        let device = Path::new("/dev").join(&name);
        let is_candidate = name.as_bytes().starts_with(b"loop")
            && device != former
            && device.exists()
            && !refuses_discards(&device);
        if is_candidate && backing_file(&device)?.is_none() && attach_to(&device, file, attachment)? {
            return Ok(device);
        }
    }
    let control = open_control()?;
    let mut device = device_path(kernel::add_device(&control)?);
    // The number is free if the former device was removed; it is taken now.
    if device == former {
        device = device_path(kernel::add_device(&control)?);
    }
    if attach_to(&device, file, attachment)? {
        Ok(device)
    } else {
        Err(io::Error::other(format!(
            "another process has taken {}, which had just been created",
            device.display()
        )))
    }
}

fn device_path(number: libc::c_int) -> PathBuf {
    PathBuf::from(format!("{DEVICE}{number}"))
}

/// Attaches a file to a device; returns `false` if another process has taken the device, or removed it.
pub(super) fn attach_to(path: &Path, file: &File, attachment: Attachment) -> io::Result<bool> {
    let Some(device) = open_with(OpenOptions::new().read(true).write(true), path)? else {
        return Ok(false);
    };
    match kernel::attach(&device, file, attachment) {
        Ok(()) => {}
        Err(error) if is(&error, Errno::BUSY) => return Ok(false),
        Err(error) => return Err(error),
    }
    let prepared = prepare(path, &device, file);
    if prepared.is_err() {
        kernel::clear(&device)?;
    }
    prepared.map(|()| true)
}

/// Makes sure that a device which has just been attached is what is expected of it, whatever its last user has set.
fn prepare(path: &Path, device: &File, file: &File) -> io::Result<()> {
    // A file must never be attached twice, and this list is the only record of what is attached. Where it is hidden,
    // nothing may stay attached.
    if backing_file(path)?.is_none() {
        return Err(io::Error::other(format!(
            "{BLOCK_DEVICES} does not show the file of {}, which has just been attached; make sysfs visible \
             to this process",
            path.display()
        )));
    }
    // `blockdev --setro` stays with a device also when its file is detached.
    kernel::set_writable(device)?;
    let (size, expected) = (size_of_device(device)?, file.metadata()?.len());
    if size / SECTOR != expected / SECTOR {
        return Err(io::Error::other(format!(
            "{} has {size} bytes, and its file {expected}",
            path.display()
        )));
    }
    Ok(())
}

/// Returns whether the reads and writes of a device bypass the page cache of the file system that has its file.
pub(super) fn is_direct(device: &Path) -> io::Result<bool> {
    let device = OpenOptions::new().read(true).open(device)?;
    Ok(kernel::status(&device)?.is_direct())
}

/// Returns the size of a block device in bytes.
fn size_of_device(mut device: &File) -> io::Result<u64> {
    device.seek(io::SeekFrom::End(0))
}

/// Makes a device refuse discards, which would give blocks of its file back.
pub(super) fn refuse_discards(device: &Path) -> io::Result<()> {
    fs::write(queue(device).join(DISCARD_LIMIT), "0")
}

/// Returns whether a device refuses discards that its file would take. It does so as long as it exists, whatever file it has:
/// the kernel accepts no other limit after 0.
fn refuses_discards(device: &Path) -> bool {
    let is_zero = |attribute| {
        let read = fs::read_to_string(queue(device).join(attribute));
        read.is_ok_and(|limit| limit.trim() == "0")
    };
    is_zero(DISCARD_LIMIT) && !is_zero("discard_max_hw_bytes")
}

/// Removes a device without a file that refuses discards, so that the next user of its number has a new one.
pub(super) fn remove_if_refusing(device: &Path) {
    let number = device
        .to_str()
        .and_then(|device| device.strip_prefix(DEVICE)?.parse().ok());
    let Some(number) = number.filter(|_| refuses_discards(device)) else {
        return;
    };
    let removed = open_control().and_then(|control| kernel::remove_device(&control, number));
    if let Err(error) = removed {
        // Another process has taken it, and uses it as it is.
        tracing::debug!(%error, "Cannot remove {}, which refuses discards", device.display());
    }
}

/// Returns the directory in which the kernel shows the queue of a device.
fn queue(device: &Path) -> PathBuf {
    let name = device.file_name().unwrap_or_default();
    Path::new(BLOCK_DEVICES).join(name).join("queue")
}

fn open_control() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)
}

/// Returns how many loop devices have a file in a directory, as sysfs shows it: no device is opened.
pub(super) fn count_below(directory: &Path) -> io::Result<u64> {
    let mut count = 0;
    for entry in fs::read_dir(BLOCK_DEVICES)? {
        let name = entry?.file_name();
        let is_loop = name.as_bytes().starts_with(b"loop");
        if is_loop && backing_file(Path::new(&name))?.is_some_and(|file| file.starts_with(directory)) {
            count += 1;
        }
    }
    Ok(count)
}

fn backing_file(device: &Path) -> io::Result<Option<PathBuf>> {
    let name = device.file_name().unwrap_or_default();
    match fs::read(Path::new(BLOCK_DEVICES).join(name).join("loop/backing_file")) {
        Ok(mut file) => {
            file.pop_if(|last| *last == b'\n');
            Ok(Some(OsString::from_vec(file).into()))
        }
        // The attribute exists only as long as there is a backing file; it may disappear between open and read.
        Err(error) if error.kind() == io::ErrorKind::NotFound || is(&error, Errno::NODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a device for reading. `None` if the kernel has removed it, or is about to.
fn open(device: &Path) -> io::Result<Option<File>> {
    open_with(OpenOptions::new().read(true), device)
}

/// Opens a device in the way of `options`. `None` if the kernel has removed it, or is about to.
fn open_with(options: &OpenOptions, device: &Path) -> io::Result<Option<File>> {
    match options.open(device) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is(&error, Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what identifies the file of a device, if it has one.
fn identity(device: &File) -> io::Result<Option<FileIdentity>> {
    match kernel::status(device) {
        Ok(status) => Ok(Some((status.device, status.inode))),
        Err(error) if is(&error, Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

fn identity_of(file: &fs::Metadata) -> FileIdentity {
    (file.dev(), file.ino())
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests;
