//! Loop devices, through the ioctls of loop(4) and what sysfs shows of them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

pub(super) const LOOP_CONTROL: &str = "/dev/loop-control";
pub(super) const BLOCK_DEVICES: &str = "/sys/block";

const LOOP_SET_FD: libc::Ioctl = 0x4C00;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CTL_ADD: libc::Ioctl = 0x4C80;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

/// What the kernel adds to the name of a file that has been removed.
const DELETED: &str = " (deleted)";

/// Requests a device with the next number that has never been used.
const NEXT_NUMBER: RawFd = -1;

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
        let mut survey = Self::default();
        for entry in fs::read_dir(BLOCK_DEVICES)? {
            let name = entry?.file_name();
            if !name.as_bytes().starts_with(b"loop") {
                continue;
            }
            let device = Path::new("/dev").join(name);
            if let Some(file) = backing_file(&device)? {
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
                    let other = self.by_identity.insert(identity, device.clone());
                    self.twice.extend(other.map(|other| (other, device.clone())));
                }
            }
            Err(error) => self.unopened = Some((device.clone(), error)),
        }
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
        ioctl(&self.0, LOOP_CLR_FD, 0).map(drop)
    }
}

/// Attaches a file to a free device, which it returns.
pub(super) fn attach(file: &File) -> io::Result<PathBuf> {
    let control = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)?;
    for _ in 0..FREE_DEVICE_ATTEMPTS {
        let device = device_path(ioctl(&control, LOOP_CTL_GET_FREE, 0)?);
        if attach_to(&device, file)? {
            return Ok(device);
        }
    }
    Err(io::Error::other(
        "other processes have taken every free loop device that was found",
    ))
}

/// Attaches a file to any free device but one, as a machine does that has assigned new numbers to its devices.
pub(super) fn attach_to_another(file: &File, former: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(BLOCK_DEVICES)? {
        let name = entry?.file_name();
        let device = Path::new("/dev").join(&name);
        let is_candidate = name.as_bytes().starts_with(b"loop") && device != former && device.exists();
        if is_candidate && backing_file(&device)?.is_none() && attach_to(&device, file)? {
            return Ok(device);
        }
    }
    let control = OpenOptions::new().read(true).write(true).open(LOOP_CONTROL)?;
    let device = device_path(ioctl(&control, LOOP_CTL_ADD, NEXT_NUMBER)?);
    if attach_to(&device, file)? {
        Ok(device)
    } else {
        Err(io::Error::other(format!(
            "another process has taken {}, which had just been created",
            device.display()
        )))
    }
}

fn device_path(number: libc::c_int) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

/// Attaches a file to a device; returns `false` if another process has taken the device.
fn attach_to(path: &Path, file: &File) -> io::Result<bool> {
    let device = OpenOptions::new().read(true).write(true).open(path)?;
    match ioctl(&device, LOOP_SET_FD, file.as_raw_fd()) {
        Ok(_) => {}
        Err(error) if is(&error, Errno::BUSY) => return Ok(false),
        Err(error) => return Err(error),
    }
    // A file must never be attached twice, and this list is the only record of what is attached. Where it is hidden,
    // nothing may stay attached.
    if backing_file(path)?.is_some() {
        return Ok(true);
    }
    ioctl(&device, LOOP_CLR_FD, 0)?;
    Err(io::Error::other(format!(
        "{BLOCK_DEVICES} does not show the file of {}, which has just been attached; make sysfs visible \
         to this process",
        path.display()
    )))
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

/// Opens a device. `None` if the kernel has freed it, or is about to.
fn open(device: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).open(device) {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is(&error, Errno::NXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns what identifies the file of a device, if it has one.
fn identity(device: &File) -> io::Result<Option<FileIdentity>> {
    match status(device) {
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

/// The kernel's `struct loop_info64`.
#[repr(C)]
#[derive(Default)]
struct LoopInfo {
    device: u64,
    inode: u64,
    backing_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encryption: [u32; 2],
    flags: u32,
    names: [[u64; 8]; 2],
    key: [u64; 4],
    init: [u64; 2],
}

#[allow(unsafe_code, reason = "no crate wraps the ioctls of loop devices")]
fn ioctl(device: &File, request: libc::Ioctl, argument: RawFd) -> io::Result<libc::c_int> {
    // SAFETY: the requests made here take an integer or nothing, so the kernel writes no memory of this process.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request, argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[allow(unsafe_code, reason = "no crate wraps the ioctls of loop devices")]
fn status(device: &File) -> io::Result<LoopInfo> {
    const { assert!(size_of::<LoopInfo>() == 232, "as large as the kernel's") };
    let mut status = LoopInfo::default();
    // SAFETY: the kernel fills a `struct loop_info64`, which has the layout of `LoopInfo`, and every pattern
    // of bits is a valid value of it.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut status) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(status)
    }
}

#[cfg(test)]
mod tests;
