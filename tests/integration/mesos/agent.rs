//! A machine with a Mesos agent and a plugin.

use host_fs::mount::testing::unmount;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use flocker_csi::config::Endpoint;
use flocker_csi::config::ListScope;
use flocker_csi::flocker::provisioning::Pool;
use uuid::Uuid;

use super::failure::Failure;
use super::isolator::Isolator;
use super::provider::{Profile, Provider};
use super::rpc::Calls;
use super::service_manager::Release;
use super::types::{Api, Capability};
use super::volume_manager::Plan;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::Mounts;
use crate::support::process::Process;

pub(crate) const MIB: i64 = 1 << 20;
/// The capacity of each pool.
pub(crate) const CAPACITY: i64 = 512 * MIB;

/// The state of an agent on its machine, and the way it reaches its plugin.
pub(crate) struct Agent {
    pub(crate) machine: Machine,
    release: Release,
    /// The plugin's address, unless a proxy is put before it.
    pub(crate) endpoint: Endpoint,
    pub(crate) work_dir: PathBuf,
    boot_id: Uuid,
    id: Uuid,
    /// The timeout of each call, if it is not a minute.
    pub(crate) deadline: Option<Duration>,
    /// The same for calls that are repeated when they fail.
    pub(crate) deadline_of_repeated: Option<Duration>,
}

impl Agent {
    /// Prepares a node of `flocker` for a release of Mesos that speaks `api`.
    pub(crate) fn new(flocker: &Flocker, number: usize, api: Api) -> Self {
        Self::on(Machine::new(flocker, number), api)
    }

    pub(crate) fn on(mut machine: Machine, api: Api) -> Self {
        let work_dir = machine.path("work_dir");
        fs::create_dir_all(&work_dir).unwrap();
        machine.config.plugin.list_scope = ListScope::Node;
        machine.config.pools = pools();
        Self {
            release: match api {
                Api::V0 => Release::Old,
                Api::V1 => Release::New,
            },
            endpoint: machine.config.plugin.endpoint.clone(),
            work_dir,
            boot_id: Uuid::new_v4(),
            id: Uuid::new_v4(),
            deadline: None,
            deadline_of_repeated: None,
            machine,
        }
    }

    /// Starts a resource provider with the profiles of [`profiles`].
    pub(crate) async fn provider(&self) -> Result<Provider, Failure> {
        self.provider_with(profiles(&["bronze"])).await
    }

    pub(crate) async fn provider_with(
        &self,
        profiles: BTreeMap<String, Profile>,
    ) -> Result<Provider, Failure> {
        let file = self.work_dir.join(format!("meta/slaves/{}/provider", self.id));
        Provider::start(self.plan("slrp", true), file, profiles).await
    }

    /// Starts the isolator, with the containers that still run.
    pub(crate) async fn isolator(&self, running: &[&str]) -> Result<Isolator, Failure> {
        Isolator::start(self.plan("isolator", false), &self.work_dir, running).await
    }

    /// Returns the agent's settings for the plugin under one of its names.
    pub(crate) fn plan(&self, name: &str, controller: bool) -> Plan {
        let root = self.work_dir.join("csi/com.clusterhq.flocker.csi").join(name);
        let mut calls = Calls::to(self.endpoint.clone());
        calls.deadline = self.deadline.unwrap_or(calls.deadline);
        calls.deadline_of_repeated = self.deadline_of_repeated.unwrap_or(calls.deadline);
        // The test does not depend on back-offs.
        calls.back_off = Duration::from_millis(20);
        Plan {
            release: self.release,
            calls,
            controller,
            mount_root: root.join("mounts"),
            root,
            boot_id: self.boot_id.to_string(),
        }
    }

    /// Registers the agent again, under a new id, so that it does not use the state of its old id.
    pub(crate) fn register_again(&mut self) {
        self.id = Uuid::new_v4();
    }

    /// Makes agents that are started from now on assume that the machine was rebooted.
    pub(crate) fn boot_again(&mut self) {
        self.boot_id = Uuid::new_v4();
    }

    /// Reboots the machine, whose plugin has been killed: its mounts no longer exist, for Flocker as well.
    pub(crate) fn reboot(&mut self, flocker: &Flocker) {
        for mount in Mounts::read().below(&self.work_dir).iter().rev() {
            unmount(&mount.point);
        }
        fs::remove_dir_all(&self.machine.config.plugin.device_dir).ok();
        self.machine.age_records();
        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.nodes.entry(self.machine.number).or_default().reboots += 1);
        self.boot_again();
    }

    /// Returns the settings of a plugin in a process of its own that are not in [`Machine::flags`].
    fn settings() -> Vec<String> {
        let pools = pools().into_iter().map(|pool| {
            let Pool {
                profile,
                capacity,
                per_node,
            } = pool;
            let profile = profile.expect("each has one");
            format!("--pool=profile={profile},capacity={capacity},per_node={per_node}")
        });
        pools.chain(["--list-scope=node".to_owned()]).collect()
    }

    /// Starts the plugin in a process of its own.
    pub(crate) async fn process(&self) -> Process {
        let settings = Self::settings();
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        self.machine.process(&settings).await
    }
}

/// Returns a pool on each node for each profile.
fn pools() -> Vec<Pool> {
    let pools = ["bronze", "gold"].map(|profile| Pool {
        profile: Some(profile.to_owned()),
        capacity: CAPACITY.cast_unsigned(),
        per_node: true,
    });
    pools.into()
}

/// Returns disk profiles that ask for the profile of the same name.
pub(crate) fn profiles(names: &[&str]) -> BTreeMap<String, Profile> {
    let profiles = names.iter().map(|name| {
        let profile = Profile {
            capability: Capability::writer(),
            parameters: [("profile".to_owned(), (*name).to_owned())].into(),
        };
        ((*name).to_owned(), profile)
    });
    profiles.collect()
}
