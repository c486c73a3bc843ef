//! Descriptors that a service manager keeps while this process is restarted: the file descriptor store of systemd.
//!
//! The protocol is that of `sd_notify(3)` and `sd_listen_fds(3)`: a datagram with the descriptor to the socket that `NOTIFY_SOCKET`
//! names, and at the next start the descriptors from number 3 on, with their names in `LISTEN_FDNAMES`.
//!
//! The crate `sd-notify` (0.5) has the same messages, but it waits without limit for a manager that does not receive, and it
//! takes every descriptor that was passed, whatever its name.
#![allow(
    unsafe_code,
    reason = "descriptors that are inherited by their numbers have no owner in this process"
)]

use std::env;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The number of the first descriptor that a manager passes.
const FIRST: RawFd = 3;
/// More descriptors than a manager passes.
const AT_MOST: RawFd = 1 << 20;
/// How long a manager may take to receive a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The connection to a service manager that keeps descriptors.
#[derive(Debug)]
pub struct DescriptorStore {
    socket: UnixDatagram,
}

impl DescriptorStore {
    /// Connects to the manager that has started this process, if one has.
    ///
    /// # Errors
    /// Its socket cannot be connected to.
    pub fn of_this_process() -> io::Result<Option<Self>> {
        env::var_os("NOTIFY_SOCKET").as_deref().map(Self::at).transpose()
    }

    fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Passes a descriptor to the manager, which keeps it until it is removed, or the service is stopped for good.
    ///
    /// A name has at most 255 printable characters, without `:`. A descriptor of a path (`O_PATH`) cannot be polled, so the
    /// message asks the manager not to.
    ///
    /// # Errors
    /// The message cannot be sent. Whether the manager keeps the descriptor is not answered.
    pub fn keep(&self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [descriptor];
        if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let text = format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}");
        self.send(&text, &mut control)
    }

    /// Makes the manager close every descriptor of a name.
    ///
    /// # Errors
    /// The message cannot be sent: the manager keeps the descriptor.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let text = format!("FDSTOREREMOVE=1\nFDNAME={name}");
        self.send(&text, &mut SendAncillaryBuffer::default())
    }

    fn send(&self, text: &str, control: &mut SendAncillaryBuffer<'_, '_, '_>) -> io::Result<()> {
        sendmsg(
            self.socket.as_fd(),
            &[IoSlice::new(text.as_bytes())],
            control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

/// Takes the descriptors of paths (`O_PATH`) that the manager has kept under names with this prefix; all others stay as they
/// are. To be called once: a second call returns the same numbers.
pub fn take_kept_paths(prefix: &str) -> Vec<(String, OwnedFd)> {
    let number = |name| -> Option<RawFd> { env::var(name).ok()?.parse().ok() };
    // The environment may be that of a process which has passed it on.
    if number("LISTEN_PID").map(i64::from) != Some(i64::from(std::process::id())) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or_default().clamp(0, AT_MOST);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    (FIRST..FIRST + count)
        .zip(names.split(':'))
        .filter(|(number, name)| name.starts_with(prefix) && is_of_a_path(*number))
        .map(|(number, name)| {
            // SAFETY: the manager has passed it to this process, which opens no descriptor of a path under a number that it
            // was passed, and nothing else takes those of this prefix.
            let kept = unsafe { OwnedFd::from_raw_fd(number) };
            // They are passed on to every child otherwise.
            fcntl_setfd(&kept, FdFlags::CLOEXEC).ok();
            (name.to_owned(), kept)
        })
        .collect()
}

/// Whether a number is that of an open descriptor of a path.
fn is_of_a_path(number: RawFd) -> bool {
    // SAFETY: the kernel answers EBADF for a number that is not open, and changes nothing.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_PATH != 0
}
