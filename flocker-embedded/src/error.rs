//! Why an embedded Flocker could not be started or stopped.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;

/// Why an [`Embedded`](crate::Embedded) Flocker could not be started or stopped.
///
/// The text never repeats the source; whoever prints it prints the chain.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings contradict themselves.
    #[error("the settings of the embedded Flocker cannot be used: {0}")]
    Options(String),
    /// Loop devices and mounts need the privileges of root.
    #[error(
        "the embedded Flocker attaches loop devices and mounts them, so it must run as root (user id {0} does)"
    )]
    NotRoot(u32),
    /// A program of the system is not there.
    #[error("cannot find the program {program} in PATH or /sbin; install the package {package}")]
    MissingProgram {
        /// Its name.
        program: &'static str,
        /// Where Debian has it.
        package: &'static str,
    },
    /// The kernel offers no loop devices.
    #[error("cannot use loop devices: {path} cannot be opened (is the kernel module `loop` loaded?)")]
    NoLoopDevices {
        /// The control device.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Another process owns the data directory.
    #[error("the data directory {path} is in use by {holder}; stop that one or choose another directory")]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// `process 4711`, or `another process` when it left no id.
        holder: String,
    },
    /// Something else listens on the address.
    #[error("cannot listen on {address}: the port is in use; stop what listens there or choose another one")]
    PortInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The address cannot be listened on for another reason.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A file or directory of its own could not be used.
    #[error("cannot {action} {path}")]
    File {
        /// What was to be done: `create`, `read`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The state file of an earlier run cannot be understood.
    #[error(
        "the state file {path} is damaged or of another version; restore it from a backup, or move it away to start empty"
    )]
    DamagedState {
        /// The file.
        path: PathBuf,
        /// Where the decoder stopped.
        #[source]
        source: serde_json::Error,
    },
    /// A key or certificate could not be made or read.
    #[error("cannot {action}")]
    Certificate {
        /// What was to be done, and with which certificate.
        action: String,
        /// What OpenSSL said.
        #[source]
        source: ErrorStack,
    },
    /// A task of the embedded Flocker broke down.
    #[error("a task of the embedded Flocker broke down")]
    Task(#[from] tokio::task::JoinError),
}

impl Error {
    /// Returns a closure that wraps an error of the file system with what was being done to which file.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
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
