//! A Unix socket in the file system, on which only this process listens.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

/// Only the user that the plugin runs as may connect, in general root.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The mode of the directories that are created for the socket.
const DIRECTORY_MODE: u32 = 0o700;

/// How many connections may wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 1024;

/// Why a Unix socket cannot be created.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The directory is missing and cannot be created.
    #[error("cannot create the directory {} for the socket", directory.display())]
    MakeDirectory {
        /// The directory.
        directory: PathBuf,
        /// The error from the kernel.
        source: io::Error,
    },
    /// The directory cannot be opened and locked.
    #[error("cannot lock the directory {} to check for an old socket in it", directory.display())]
    LockDirectory {
        /// The directory.
        directory: PathBuf,
        /// The error from the kernel.
        source: io::Error,
    },
    /// The file at the path cannot be inspected.
    #[error("cannot check whether {} is in use", path.display())]
    Inspect {
        /// The path of the socket.
        path: PathBuf,
        /// The error from the kernel.
        source: io::Error,
    },
    /// A process listens at the path.
    #[error(
        "the socket {} is in use: a process listens on it; stop that process or choose another endpoint",
        path.display()
    )]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// The file at the path is not a socket.
    #[error(
        "{} exists and is not a socket, so it is left unchanged; remove it or choose another endpoint",
        path.display()
    )]
    NotASocket {
        /// The path of the socket.
        path: PathBuf,
    },
    /// A socket on which no process listens cannot be removed.
    #[error("cannot remove the old socket {}, on which no process listens", path.display())]
    RemoveOld {
        /// The path of the socket.
        path: PathBuf,
        /// The error from the kernel.
        source: io::Error,
    },
    /// The socket cannot be created.
    #[error("cannot listen on the socket {}", path.display())]
    Listen {
        /// The path of the socket.
        path: PathBuf,
        /// The error from the kernel.
        source: io::Error,
    },
}

/// The name of a socket on which this process listens.
#[derive(Clone, Debug)]
pub struct SocketName {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketName {
    /// Whether the name still refers to the socket, which another process may have removed or replaced.
    pub(crate) fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// The name of a socket on which this process listens; dropping it removes the name, unless that refers to another file.
///
/// It is dropped before the listener is closed: as long as one process listens, no other replaces its socket.
#[derive(Debug)]
pub(super) struct SocketFile(SocketName);

impl SocketFile {
    pub(super) fn name(&self) -> &SocketName {
        &self.0
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.0.is_in_place()
            && let Err(error) = fs::remove_file(&self.0.path)
        {
            let path = self.0.path.display();
            tracing::warn!(socket.path = %path, %error, "Cannot remove the socket {path}");
        }
    }
}

/// Listens on a Unix socket at `path`, of mode 0600 from its creation.
///
/// A missing directory is created with mode 0700. An old socket on which no process listens is replaced. Returns `None`
/// while another process does the same in this directory, which is short.
///
/// # Errors
///
/// Fails when another file or a socket in use is at `path`, and when the kernel refuses a step.
pub(super) fn try_listen(path: &Path) -> Result<Option<(SocketFile, UnixListener)>, SocketError> {
    let directory = directory_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|source| SocketError::MakeDirectory {
            directory: directory.to_owned(),
            source,
        })?;
    // Between the check of an old socket and its replacement, no other process may do the same. A CSI socket's directory
    // may hold no other file, so the lock is on the directory.
    let lock = lock(directory).map_err(|source| SocketError::LockDirectory {
        directory: directory.to_owned(),
        source,
    })?;
    if lock.is_none() {
        return Ok(None);
    }
    remove_old(path)?;
    listen(path).map(Some).map_err(|source| SocketError::Listen {
        path: path.to_owned(),
        source,
    })
}

/// Returns the directory that a socket is in.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Locks a directory until the returned file is closed, or returns `None` if another process has locked it.
fn lock(directory: &Path) -> io::Result<Option<File>> {
    let directory = File::open(directory)?;
    match directory.try_lock() {
        Ok(()) => Ok(Some(directory)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Removes a socket on which no process listens.
fn remove_old(path: &Path) -> Result<(), SocketError> {
    let inspect = |source| SocketError::Inspect {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(inspect(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match try_connect(path) {
        // A process listens also where the queue of connections is full.
        Ok(()) | Err(Errno::AGAIN) => Err(SocketError::InUse {
            path: path.to_owned(),
        }),
        Err(Errno::CONNREFUSED) => {
            tracing::info!(socket.path = %path.display(), "Replacing the old socket {}", path.display());
            fs::remove_file(path).map_err(|source| SocketError::RemoveOld {
                path: path.to_owned(),
                source,
            })
        }
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(inspect(error.into())),
    }
}

/// Connects to a socket without waiting, and disconnects.
fn try_connect(path: &Path) -> rustix::io::Result<()> {
    rustix::net::connect(stream_socket()?, &SocketAddrUnix::new(path)?)
}

fn listen(path: &Path) -> io::Result<(SocketFile, UnixListener)> {
    let socket = stream_socket()?;
    // The name gets the mode that the socket has when it is bound.
    rustix::fs::fchmod(&socket, SOCKET_MODE)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let bound = fs::symlink_metadata(path)?;
    let file = SocketFile(SocketName {
        path: path.to_owned(),
        device: bound.dev(),
        inode: bound.ino(),
    });
    rustix::net::listen(&socket, BACKLOG)?;
    Ok((file, UnixListener::from(socket)))
}

fn stream_socket() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn socket_path() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        (directory, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_the_own_user_may_connect_or_enter_a_directory_created_for_the_socket() {
        let (directory, _) = socket_path();
        let path = directory.path().join("a/b/csi.sock");
        let _listening = try_listen(&path).unwrap().unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&directory.path().join("a")), 0o700);
        assert_eq!(mode(&directory.path().join("a/b")), 0o700);
        UnixStream::connect(path).unwrap();
    }

    #[test]
    fn the_mode_of_an_existing_directory_stays() {
        let (directory, path) = socket_path();
        let before = mode(directory.path());
        let _listening = try_listen(&path).unwrap().unwrap();
        assert_eq!(mode(directory.path()), before);
    }

    #[test]
    fn an_old_socket_is_replaced() {
        let (_directory, path) = socket_path();
        drop(UnixListener::bind(&path).unwrap());
        let _listening = try_listen(&path).unwrap().unwrap();
        UnixStream::connect(path).unwrap();
    }

    #[test]
    fn a_socket_with_a_listener_is_in_use() {
        let (_directory, path) = socket_path();
        let (file, listener) = try_listen(&path).unwrap().unwrap();
        let error = try_listen(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()));
        UnixStream::connect(&path).unwrap();
        drop((file, listener));
        assert!(try_listen(&path).unwrap().is_some());
    }

    #[test]
    fn a_socket_whose_queue_is_full_is_in_use() {
        let (_directory, path) = socket_path();
        let socket = stream_socket().unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let error = try_listen(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_no_stream_socket_stays() {
        let (directory, path) = socket_path();
        fs::write(&path, "precious").unwrap();
        let link = directory.path().join("link.sock");
        std::os::unix::fs::symlink("elsewhere.sock", &link).unwrap();
        for path in [&path, &link, &directory.path().to_owned()] {
            let error = try_listen(path).unwrap_err();
            assert!(matches!(error, SocketError::NotASocket { .. }), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let datagram = directory.path().join("datagram.sock");
        let _socket = UnixDatagram::bind(&datagram).unwrap();
        let error = try_listen(&datagram).unwrap_err();
        assert!(matches!(error, SocketError::Inspect { .. }), "{error}");
        assert!(datagram.exists());
    }

    #[test]
    fn only_one_process_at_a_time_replaces_sockets_of_a_directory() {
        let (directory, path) = socket_path();
        let other = lock(directory.path()).unwrap().unwrap();
        assert!(try_listen(&path).unwrap().is_none());
        drop(other);
        assert!(try_listen(&path).unwrap().is_some());
    }

    #[test]
    fn a_name_is_removed_by_its_owner_only() {
        let (_directory, path) = socket_path();
        let (file, listener) = try_listen(&path).unwrap().unwrap();
        drop(file);
        assert!(!path.exists());
        drop(listener);

        let (file, _listener) = try_listen(&path).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        let _another = UnixListener::bind(&path).unwrap();
        drop(file);
        UnixStream::connect(path).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_created_is_named() {
        let (directory, path) = socket_path();
        fs::write(&path, "").unwrap();
        let error = try_listen(&path.join("sub/csi.sock")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("{}", directory.path().join("csi.sock/sub").display()))
        );
    }
}
