//! How Mesos finds the version of CSI that a plugin supports.

use tonic::Code;

use super::client::Client;
use super::failure::{Failure, failed};
use super::rpc::Calls;
use super::types::Api;

/// The versions of CSI that a release of Mesos supports, in the order in which it tries them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// Mesos 1.6 and 1.7.
    Old,
    /// Mesos 1.8 to 1.11.
    New,
}

impl Release {
    fn versions(self) -> &'static [Api] {
        match self {
            Self::Old => &[Api::V0],
            Self::New => &[Api::V1, Api::V0],
        }
    }
}

/// Probes a plugin in each version until the plugin supports one.
///
/// # Errors
/// Any answer but OK and UNIMPLEMENTED ends the use of the plugin, until the agent starts again.
pub(crate) async fn connect(release: Release, calls: Calls) -> Result<Client, Failure> {
    let words = format!("Failed to probe endpoint '{}'", calls.endpoint);
    for api in release.versions() {
        let client = Client {
            api: *api,
            calls: calls.clone(),
        };
        match client.probe().await {
            Ok(()) => return Ok(client),
            Err(failure) if failure.code() == Some(Code::Unimplemented) => {}
            Err(failure) => return Err(failure.context(&words)),
        }
    }
    failed(format!("{words}: Unknown API version"))
}
