//! A plan that is read from a file.

use std::io;
use std::path::{Path, PathBuf};

use host_fs::{Links, read_regular};
use tokio::task::spawn_blocking;
use tokio::time::{Duration, sleep};

use super::control::Faults;
use super::plan::FaultPlan;
use crate::error::chain;

/// The interval at which the file is read.
const INTERVAL: Duration = Duration::from_millis(200);
/// The largest plan in bytes that is read.
const LARGEST: u64 = 1 << 20;

/// Why a plan cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The file cannot be read.
    #[error("cannot read the plan of faults {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
    /// The file is not JSON, or has an unknown field or value.
    #[error("cannot decode the plan of faults {path}")]
    Undecodable {
        /// The file.
        path: PathBuf,
        /// Where the decoder stopped.
        #[source]
        source: serde_json::Error,
    },
    /// The plan has a fault that cannot have an effect.
    #[error("the plan of faults {path} is invalid: {mistake}")]
    Impossible {
        /// The file.
        path: PathBuf,
        /// The fault, and the reason.
        mistake: String,
    },
}

impl FaultPlan {
    /// Reads a plan for a number of nodes from a JSON file. Durations in it are in milliseconds.
    pub fn read(path: &Path, nodes: usize) -> Result<Self, PlanError> {
        Self::decode(read_plan(path), path, nodes)
    }

    fn decode(text: io::Result<Vec<u8>>, path: &Path, nodes: usize) -> Result<Self, PlanError> {
        let path = path.to_owned();
        let text = match text {
            Ok(text) => text,
            Err(source) => return Err(PlanError::Unreadable { path, source }),
        };
        let plan: Self = match serde_json::from_slice(&text) {
            Ok(plan) => plan,
            Err(source) => return Err(PlanError::Undecodable { path, source }),
        };
        match plan.check(nodes) {
            Ok(()) => Ok(plan),
            Err(mistake) => Err(PlanError::Impossible { path, mistake }),
        }
    }
}

fn read_plan(path: &Path) -> io::Result<Vec<u8>> {
    read_regular(path, LARGEST, Links::Follow)
}

impl Faults {
    /// Applies the plan in a file, at once and whenever the file has changed. Never returns.
    ///
    /// A file that cannot be used is an error in the log, and the last valid plan stays. Replace the file atomically,
    /// by renaming another one to its name: a file that is read half-written counts as invalid until it is complete.
    pub async fn follow(&self, path: &Path) {
        let mut last = None;
        loop {
            let file = path.to_owned();
            let text = spawn_blocking(move || read_plan(&file)).await;
            let text = text.unwrap_or_else(|ended| Err(io::Error::other(ended)));
            let seen = text.as_ref().map_err(io::Error::kind).cloned();
            if last.as_ref() != Some(&seen) {
                match FaultPlan::decode(text, path, self.nodes()) {
                    Ok(plan) => {
                        tracing::info!("The plan of faults {} applies from now on", path.display());
                        self.set(plan);
                    }
                    Err(error) => tracing::error!("{}; the last valid plan still applies", chain(&error)),
                }
                last = Some(seen);
            }
            sleep(INTERVAL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<FaultPlan, String> {
        FaultPlan::decode(Ok(text.into()), Path::new("/plan.json"), 2).map_err(|error| chain(&error))
    }

    #[test]
    fn a_file_can_contain_every_fault() {
        let text = r#"{
            "requests": [
                {"name": "slow", "method": "GET", "route": "/v1/state/datasets", "effect": {"delay": 20}},
                {"name": "full", "containing": "x", "after": 1, "times": 2,
                 "effect": {"answer": {"status": 500, "body": "\"x@/2\""}}},
                {"name": "lost", "effect": "lose_request"}, {"name": "gone", "effect": "lose_reply"},
                {"name": "held", "effect": "hold_request"}, {"name": "late", "effect": "hold_reply"}
            ],
            "nodes": {
                "1": {"agent": "stopped", "reboots": 1, "era": "1b4e28ba-2fa1-4d2c-883f-0016d3cca427"},
                "2": {"machine": "off"}
            },
            "control_stopped": true, "control_restarts": 3, "reconnect_after": 1500,
            "dead_nodes_known": true, "flicker": "unsettled"
        }"#;
        let plan = decode(text).unwrap();
        assert_eq!((plan.requests.len(), plan.nodes.len()), (6, 2));
        assert_eq!(plan.reconnect_after, Duration::from_millis(1_500));
        assert_eq!(decode("{}").unwrap(), FaultPlan::default());
    }

    #[test]
    fn a_mistake_is_named() {
        let cases = [
            ("{", "EOF"),
            (r#"{"node": {}}"#, "unknown field `node`"),
            (r#"{"nodes": {"1": {"agent": "dead"}}}"#, "unknown variant `dead`"),
            (r#"{"nodes": {"3": {}}}"#, "node 3"),
            (
                r#"{"requests": [{"name": "x", "route": "/v1/nope", "effect": "lose_reply"}]}"#,
                "/v1/nope",
            ),
            (
                r#"{"requests": [{"name": "x", "effect": "lose_reply"}, {"name": "x", "effect": "lose_request"}]}"#,
                "two rules",
            ),
            (
                r#"{"requests": [{"name": "x", "effect": {"answer": {"status": 1000, "body": ""}}}]}"#,
                "1000",
            ),
            (
                r#"{"nodes": {"1": {"era": "1b4e28ba-2fa1-4d2c-883f-0016d3cca427"},
                    "2": {"era": "1b4e28ba-2fa1-4d2c-883f-0016d3cca427"}}}"#,
                "same era",
            ),
        ];
        for (text, expected) in cases {
            let error = decode(text).unwrap_err();
            assert!(
                error.contains("/plan.json") && error.contains(expected),
                "{error}"
            );
        }
        let error = FaultPlan::read(Path::new("/nowhere/plan.json"), 1).unwrap_err();
        assert!(error.to_string().contains("/nowhere/plan.json"));
    }
}
