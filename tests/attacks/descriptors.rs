//! A plugin that has used up its open files. Every call has to be answered with an error that is worth a retry, leave
//! nothing half done, and succeed once there are descriptors again.

use std::collections::HashMap;
use std::fs;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use tonic::{Code, Status};

use crate::support::csi::Usage;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::Process;

/// Sets how many descriptors the plugin may have, and returns how many it was before.
fn limit(plugin: &Process, descriptors: u64) -> u64 {
    let pid = Pid::from_raw(plugin.id().cast_signed());
    let limit = Rlimit {
        current: Some(descriptors),
        // As the plugin has inherited it.
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    prlimit(pid, Resource::Nofile, limit).unwrap().current.unwrap()
}

/// Checks that a call without descriptors is worth a retry.
#[track_caller]
fn assert_retryable(call: &str, answer: Result<(), Status>) {
    let status = answer.unwrap_err();
    let retried = [Code::Unavailable, Code::DeadlineExceeded];
    assert!(retried.contains(&status.code()), "{call}: {status:?}");
    assert!(
        status.message().contains("oo many open files"),
        "{call}: {status:?}"
    );
}

#[test]
fn a_plugin_without_descriptors_answers_what_is_worth_a_retry() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let csi = &plugin.csi;
        let volume = csi.create("data").await;
        let context = csi.attach(volume, machine.node()).await;
        let usage: Usage = machine.usage("data", volume, &context);
        // One call of each kind before, so that what is opened once is open.
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();

        let usual = limit(&plugin, 3);
        assert_retryable("stage", csi.stage(&usage).await);
        limit(&plugin, usual);
        csi.stage(&usage).await.unwrap();
        limit(&plugin, 3);
        assert_retryable("publish", csi.publish(&usage).await);
        limit(&plugin, usual);
        csi.publish(&usage).await.unwrap();
        limit(&plugin, 3);
        assert_retryable("unpublish", csi.unpublish(&usage).await);
        limit(&plugin, usual);
        csi.unpublish(&usage).await.unwrap();
        limit(&plugin, 3);
        assert_retryable("unstage", csi.unstage(&usage).await);
        limit(&plugin, usual);
        csi.unstage(&usage).await.unwrap();

        assert!(machine.records().is_empty() && machine.devices().is_empty());
        assert!(!usage.target.exists() && !usage.alias().exists());
        let by_node = machine.usage("data", volume, &HashMap::new());
        csi.stage(&by_node).await.unwrap();
        assert!(fs::exists(by_node.alias()).unwrap());
        csi.unstage(&by_node).await.unwrap();
        plugin.terminate().await;
    });
}
