//! Mesos: a client that calls as its agents do, and stops as they do when a plugin is wrong.
//!
//! It covers both consumers of CSI in Mesos: storage local resource providers ([`provider`]) and the `volume/csi`
//! isolator ([`isolator`]), on the volume manager that they share ([`volume_manager`]). It has no timers: a test triggers
//! what Mesos does every ten seconds. Each case names the tests of Mesos that it covers.

mod agent;
mod client;
mod disks;
mod failure;
mod files;
mod isolator;
mod mobility;
mod provider;
mod proxy;
mod recovery;
mod requirements;
mod retries;
mod rpc;
mod service_manager;
mod task;
mod types;
mod versions;
mod volume_csi;
mod volume_manager;
mod volume_state;
mod wrong_plugins;

use agent::Agent;
use failure::Failure;
use types::Api;

use crate::support::flocker::Flocker;
use crate::support::machine::Running;

/// Makes tests of cases, for each version of CSI that Mesos supports.
macro_rules! both {
    ($($case:ident),+ $(,)?) => {
        $(mod $case {
            use crate::mesos::types::Api;
            use crate::support::namespace::in_own_namespace;

            #[test]
            fn v0() {
                in_own_namespace(|| super::$case(Api::V0));
            }

            #[test]
            fn v1() {
                in_own_namespace(|| super::$case(Api::V1));
            }
        })+
    };
}
use both;

/// The calls of a provider that starts, up to the first list.
const START: [&str; 8] = [
    "Probe",
    "GetPluginCapabilities",
    "GetPluginInfo",
    "GetPluginInfo",
    "ControllerGetCapabilities",
    "NodeGetCapabilities",
    "NodeGetInfo",
    "ListVolumes",
];
/// A read of the plugin's resources, for one profile.
const LOOK: [&str; 2] = ["ListVolumes", "GetCapacity"];
/// The way of a volume to a task, and back.
const PUBLISH: [&str; 2] = ["NodeStageVolume", "NodePublishVolume"];
const UNPUBLISH: [&str; 2] = ["NodeUnpublishVolume", "NodeUnstageVolume"];

/// A Flocker of two nodes, and an agent with a plugin on the first one.
struct Fixture {
    flocker: Flocker,
    agent: Agent,
    plugin: Running,
}

impl Fixture {
    async fn start(api: Api) -> Self {
        let flocker = Flocker::start(2).await;
        let agent = Agent::new(&flocker, 1, api);
        let plugin = agent.machine.plugin().await;
        Self {
            flocker,
            agent,
            plugin,
        }
    }

    /// Returns the content of a file of an unused volume, as the first node has it.
    fn read_back(&self, volume_id: &str, name: &str) -> String {
        let mount = self.flocker.mount_of(1, volume_id.parse().unwrap());
        std::fs::read_to_string(mount.join(name)).unwrap()
    }
}

/// Joins the expected calls of a test.
fn calls(parts: &[&[&'static str]]) -> Vec<&'static str> {
    parts.concat()
}

/// Checks that an operation failed with these words.
#[track_caller]
fn assert_failed<T>(outcome: Result<T, Failure>, words: &[&str]) {
    let Err(failure) = outcome else {
        panic!("expected to fail with {words:?}");
    };
    let text = failure.to_string();
    for part in words {
        assert!(text.contains(part), "{part:?} in {text:?}");
    }
}
