//! The name of this machine.

use rustix::system::uname;

/// Returns the host name of this machine, or that of the pod in which the process runs.
pub(crate) fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}
