//! An open mount table: its text, and whether it has changed since.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Follows one mount table from the moment it was opened.
///
/// The kernel keeps a change counter for every such descriptor: poll(2) reports each change once, as
/// `POLLPRI|POLLERR`, also one that happened before the call.
#[derive(Debug)]
pub struct MountEvents {
    table: File,
}

impl MountEvents {
    /// Opens the table of the calling thread's mount namespace.
    ///
    /// # Errors
    /// `/proc` is missing or may not be read.
    pub fn of_this_thread() -> io::Result<MountEvents> {
        MountEvents::of("thread-self")
    }

    /// Opens the table of a process (its id, or `self`, or `thread-self`).
    ///
    /// # Errors
    /// `/proc` is missing or may not be read, or the process has ended.
    pub fn of(process: &str) -> io::Result<MountEvents> {
        Ok(MountEvents {
            table: File::open(format!("/proc/{process}/mountinfo"))?,
        })
    }

    /// Reads the text from its start.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        self.table.rewind()?;
        self.table.read_to_end(&mut text)?;
        Ok(text)
    }

    /// Waits until the table changes, or returns `false` when the time is over.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn changed_within(&self, timeout: Duration) -> io::Result<bool> {
        wait_for(&mut [PollFd::new(&self.table, PollFlags::PRI)], Some(timeout))
    }

    /// Waits until the table changes, or returns `false` as soon as the other descriptor is readable or closed.
    ///
    /// # Errors
    /// The kernel refuses to wait.
    pub fn changed_before(&self, stop: impl AsFd) -> io::Result<bool> {
        let mut descriptors = [
            PollFd::new(&self.table, PollFlags::PRI),
            PollFd::new(&stop, PollFlags::IN),
        ];
        loop {
            wait_for(&mut descriptors, None)?;
            match descriptors
                .each_ref()
                .map(|descriptor| !descriptor.revents().is_empty())
            {
                [_, true] => return Ok(false),
                [true, false] => return Ok(true),
                [false, false] => {}
            }
        }
    }
}

/// For a caller that waits in an event loop of its own: a change is reported as an exceptional condition.
impl AsFd for MountEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.table.as_fd()
    }
}

impl AsRawFd for MountEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.table.as_raw_fd()
    }
}

/// Waits until a descriptor is readable or closed, or returns `false` when the time is over.
///
/// # Errors
/// The kernel refuses to wait.
pub fn wait_readable(descriptor: impl AsFd, timeout: Duration) -> io::Result<bool> {
    wait_for(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(timeout))
}

fn wait_for(descriptors: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    // A time that does not fit is treated as no limit.
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(descriptors, timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        // A signal is no event; the caller checks its own condition or deadline and calls again.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{in_own_namespace, tmpfs};
    use super::*;

    #[test]
    fn a_change_is_reported_once_even_if_it_came_before_the_wait() {
        in_own_namespace(|scratch| {
            let events = MountEvents::of_this_thread().unwrap();
            assert!(!events.changed_within(Duration::ZERO).unwrap());
            tmpfs(&scratch.join("a"));
            assert!(events.changed_within(Duration::from_secs(10)).unwrap());
            assert!(!events.changed_within(Duration::ZERO).unwrap());
        });
    }

    #[test]
    fn a_change_of_flags_is_a_change_of_the_table() {
        in_own_namespace(|scratch| {
            let point = scratch.join("a");
            tmpfs(&point);
            let events = MountEvents::of_this_thread().unwrap();
            rustix::mount::mount_remount(
                &point,
                rustix::mount::MountFlags::BIND | rustix::mount::MountFlags::RDONLY,
                "",
            )
            .unwrap();
            assert!(events.changed_within(Duration::ZERO).unwrap());
        });
    }
}
