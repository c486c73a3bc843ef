//! A Unix socket in the file system that is ours alone while we listen on it.

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

/// Who may connect: the user the plugin runs as, root in general.
const SOCKET_MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// The mode of the directories that are made for the socket.
const DIRECTORY_MODE: u32 = 0o700;

/// How many clients may wait to be accepted; the kernel has a limit of its own.
const BACKLOG: i32 = 1024;

/// Why a Unix socket could not be made.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The directory is missing and cannot be made.
    #[error("cannot make the directory {} for the socket", directory.display())]
    MakeDirectory {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The directory cannot be opened and locked.
    #[error("cannot lock the directory {} while looking for an old socket in it", directory.display())]
    LockDirectory {
        /// The directory.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It cannot be found out what is at the path.
    #[error("cannot tell whether {} is in use", path.display())]
    Inspect {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A process answers at the path.
    #[error(
        "the socket {} is in use: a process answers on it; stop that process or choose another endpoint",
        path.display()
    )]
    InUse {
        /// The path of the socket.
        path: PathBuf,
    },
    /// Something that is no socket is at the path.
    #[error(
        "{} exists and is no socket, so it is left as it is; remove it or choose another endpoint",
        path.display()
    )]
    NotASocket {
        /// The path of the socket.
        path: PathBuf,
    },
    /// A socket that nobody answers on cannot be removed.
    #[error("cannot remove the old socket {}, on which nobody answers", path.display())]
    RemoveOld {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket cannot be made.
    #[error("cannot listen on the socket {}", path.display())]
    Listen {
        /// The path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The name of a socket we listen on.
#[derive(Clone, Debug)]
pub struct SocketName {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketName {
    /// Whether the name still leads to the socket, which somebody may have removed or replaced.
    pub fn is_in_place(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode))
    }
}

/// The name of a socket we listen on; dropping it removes the name, unless it has become somebody else's.
///
/// It is dropped before the listener is closed: as long as a process answers, no other takes its name.
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
            tracing::warn!(socket.path = %path, %error, "Could not remove the socket {path}");
        }
    }
}

/// Listens on a Unix socket at `path`, of mode 0600 from the moment it is there.
///
/// A missing directory is made, for us alone. An old socket on which nobody answers is replaced. Returns
/// `None` while another process does the same in this directory, which takes it a moment only.
///
/// # Errors
///
/// Fails when something else is at `path`, and when the kernel refuses a step.
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
    // Between looking at an old socket and replacing it, nobody else may do so. No file may lie beside a CSI
    // socket, so it is the directory that is locked.
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

/// Removes a socket on which nobody answers.
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
    match knock(path) {
        // A full queue of clients has a process behind it, too.
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

/// Connects to a socket without waiting, and hangs up.
fn knock(path: &Path) -> rustix::io::Result<()> {
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

    fn scene() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("csi.sock");
        (directory, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn only_our_user_may_connect_or_enter_a_directory_made_for_the_socket() {
        let (directory, _) = scene();
        let path = directory.path().join("a/b/csi.sock");
        let _listening = try_listen(&path).unwrap().unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&directory.path().join("a")), 0o700);
        assert_eq!(mode(&directory.path().join("a/b")), 0o700);
        UnixStream::connect(path).unwrap();
    }

    #[test]
    fn the_mode_of_an_existing_directory_stays() {
        let (directory, path) = scene();
        let before = mode(directory.path());
        let _listening = try_listen(&path).unwrap().unwrap();
        assert_eq!(mode(directory.path()), before);
    }

    #[test]
    fn an_old_socket_is_replaced() {
        let (_directory, path) = scene();
        drop(UnixListener::bind(&path).unwrap());
        let _listening = try_listen(&path).unwrap().unwrap();
        UnixStream::connect(path).unwrap();
    }

    #[test]
    fn a_socket_that_answers_is_in_use() {
        let (_directory, path) = scene();
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
        let (_directory, path) = scene();
        let socket = stream_socket().unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let error = try_listen(&path).unwrap_err();
        assert!(matches!(error, SocketError::InUse { .. }), "{error}");
    }

    #[test]
    fn what_is_no_stream_socket_stays() {
        let (directory, path) = scene();
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
    fn nobody_looks_at_old_sockets_while_another_does() {
        let (directory, path) = scene();
        let other = lock(directory.path()).unwrap().unwrap();
        assert!(try_listen(&path).unwrap().is_none());
        drop(other);
        assert!(try_listen(&path).unwrap().is_some());
    }

    #[test]
    fn the_name_goes_with_its_owner_and_no_other() {
        let (_directory, path) = scene();
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
    fn a_directory_that_cannot_be_made_is_named() {
        let (directory, path) = scene();
        fs::write(&path, "").unwrap();
        let error = try_listen(&path.join("sub/csi.sock")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("{}", directory.path().join("csi.sock/sub").display()))
        );
    }
}
