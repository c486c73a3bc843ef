//! Why an embedded Flocker could not be started or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use host_fs::LockError;
use openssl::error::ErrorStack;

/// Why an [`Embedded`](crate::Embedded) Flocker could not be started or stopped.
///
/// The text never repeats the source, so print it together with its [chain of sources](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The settings contradict themselves.
    #[error("the settings of the embedded Flocker cannot be used: {0}")]
    Options(String),
    /// Loop devices and mounts need the privileges of root.
    #[error(
        "the embedded Flocker attaches loop devices and mounts them, so it must run as root (the user id is {0})"
    )]
    NotRoot(u32),
    /// A program of the system is missing.
    #[error("cannot find the program {program} in PATH, /usr/sbin or /sbin; install the package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// The package of Debian that contains it.
        package: &'static str,
    },
    /// The kernel offers no loop devices.
    #[error("cannot use loop devices: {path} cannot be opened (is the kernel module `loop` loaded?)")]
    NoLoopDevices {
        /// The control device.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// Another process owns the data directory.
    #[error("the data directory {path} is in use by {holder}; stop that process or choose another directory")]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// `process 4711`, or `another process` when it left no id.
        holder: String,
    },
    /// The data directory cannot be locked.
    #[error("cannot lock the data directory")]
    DataDir(#[source] LockError),
    /// Another process listens on the address.
    #[error(
        "cannot listen on {address}: the port is in use; stop the process that listens there or choose another port"
    )]
    PortInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Listening on the address fails for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// A file or directory of the data directory, or of the clients' files, could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was being done: `create`, `read`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The state of an earlier run cannot be decoded.
    #[error(
        "the state file {path} is damaged or of another version; restore it from a backup, or move the whole data \
         directory away to start empty (the volumes in it can then be read with `mount -o loop`)"
    )]
    DamagedState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// The state was written by a later version.
    #[error(
        "the state file {path} has the form {format}, which this version cannot read: use the version that was used last"
    )]
    LaterState {
        /// The file.
        path: PathBuf,
        /// The number of its form.
        format: u32,
    },
    /// There is a state of an earlier version beside that of this one.
    #[error(
        "{state_file} is the state of an earlier version, and {database} that of this one, and which of them is the newer \
         one is not known. To continue with {database}, move {state_file} away; to continue with the state of the earlier \
         version, move {database} away. A volume that the chosen one does not have is left as it is"
    )]
    TwoStates {
        /// The state file of the earlier version.
        state_file: PathBuf,
        /// The database.
        database: PathBuf,
    },
    /// The data directory has been in use, and its state is missing.
    #[error(
        "the state file {path} is missing, but {found} shows that the data directory has been in use: it is not taken \
         for a new one, because its volumes may have data. Restore {path} from a backup, or mount the file system that \
         has it. If there is none, move the whole data directory away, start with an empty one, create the volumes \
         again and copy their content: `mount -o loop,ro OLD_DATA_DIR/volumes/DATASET_ID /mnt` shows that of each"
    )]
    LostState {
        /// The state file.
        path: PathBuf,
        /// What shows that there was one.
        found: PathBuf,
    },
    /// A key or certificate could not be created or read.
    #[error("cannot {action}")]
    Certificate {
        /// What was being done, and with which certificate.
        action: String,
        /// The errors of OpenSSL.
        #[source]
        source: ErrorStack,
    },
    /// A task of the embedded Flocker panicked.
    #[error("a task of the embedded Flocker panicked or was cancelled")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// Returns a closure that adds to an error of the file system what was being done to which file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// Makes the error of using the state at `path`, which is damaged if its content is the reason.
    pub(crate) fn of_state(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::InvalidData => Self::DamagedState { path, source },
            _ => Self::File { action, path, source },
        }
    }
}

/// Returns the text of an error and of all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
