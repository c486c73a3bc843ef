//! The version of CSI that Mesos uses with a plugin.

use std::time::Duration;

use flocker_csi::config::Endpoint;

use super::agent::Agent;
use super::assert_failed;
use super::failure::Failure;
use super::proxy::{Proxy, Wrong};
use super::rpc::Calls;
use super::service_manager::{Release, connect};
use super::types::Api;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

/// Probes a plugin, and returns the version and the number of probes.
async fn version(release: Release, endpoint: &Endpoint) -> Result<(Api, usize), Failure> {
    let calls = Calls::to(endpoint.clone());
    let client = connect(release, calls.clone()).await?;
    client.info().await?;
    Ok((client.api, calls.take_made().len() - 1))
}

#[test]
fn mesos_speaks_the_newest_version_that_the_plugin_knows() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let agent = Agent::new(&flocker, 1, Api::V1);
        let plugin = agent.machine.plugin().await;
        assert_eq!(
            version(Release::New, &agent.endpoint).await.unwrap(),
            (Api::V1, 1)
        );
        assert_eq!(
            version(Release::Old, &agent.endpoint).await.unwrap(),
            (Api::V0, 1)
        );
        let old = Proxy::start(&agent.machine, Api::V0, Wrong::Nothing);
        assert_eq!(version(Release::New, &old.endpoint).await.unwrap(), (Api::V0, 2));
        old.stop().await;
        let new = Proxy::start(&agent.machine, Api::V1, Wrong::Nothing);
        let words = ["Failed to probe endpoint", "Unknown API version"];
        assert_failed(version(Release::Old, &new.endpoint).await, &words);
        new.stop().await;
        plugin.stop().await;
    });
}

#[test]
fn an_answer_to_a_probe_that_is_neither_ok_nor_unimplemented_is_the_end() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut agent = Agent::new(&flocker, 1, Api::V1);
        // The plugin behind it does not run.
        let broken = Proxy::start(&agent.machine, Api::V0, Wrong::Nothing);
        agent.endpoint = broken.endpoint.clone();
        agent.deadline = Some(Duration::from_secs(2));
        let plan = agent.plan("slrp", true);
        let calls = plan.calls.clone();
        let failed = connect(Release::New, plan.calls).await.err().unwrap();
        assert_eq!(failed.code(), None);
        assert_failed::<()>(Err(failed), &["Failed to probe endpoint", "UNAVAILABLE"]);
        assert_eq!(calls.take_made(), ["Probe", "Probe"], "each version once");
        let mut refused = Calls::to(Endpoint::Unix(agent.machine.path("nowhere.sock")));
        refused.deadline = Duration::from_millis(200);
        let failed = connect(Release::New, refused.clone()).await.err().unwrap();
        assert_failed::<()>(Err(failed), &["Failed to probe endpoint", "DEADLINE_EXCEEDED"]);
        assert_eq!(refused.take_made(), ["Probe"], "no other version is tried");
        broken.stop().await;
    });
}
