//! A Flocker and a plugin that do not trust each other.

use std::fs;

use csi_proto::v1::{ListVolumesRequest, ProbeRequest};
use flocker_embedded::CertificateProfile;
use flocker_embedded::pki::{Authority, Role};
use tonic::Code;
use uuid::Uuid;

use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

/// Starts a plugin, which serves even if it does not trust Flocker, and checks the errors of calls that need Flocker.
async fn assert_unavailable(machine: &Machine, parts: &[&str]) {
    let plugin = machine.plugin().await;
    let ready = plugin.csi.identity().probe(ProbeRequest {}).await.unwrap();
    assert_eq!(ready.into_inner().ready, Some(true));
    let mut controller = plugin.csi.controller();
    let list = controller.list_volumes(ListVolumesRequest::default()).await;
    let refused = list.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{}", refused.message());
    for part in parts {
        assert!(
            refused.message().contains(part),
            "{part:?} in {:?}",
            refused.message()
        );
    }
    plugin.stop().await;
}

#[test]
fn a_plugin_and_a_flocker_of_different_clusters_are_distinguished() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        let stranger = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        let user = stranger.issue(&Role::User("plugin".to_owned())).unwrap();
        let write = |name: &str, pem: &[u8]| {
            let path = flocker.path().join(name);
            fs::write(&path, pem).unwrap();
            path
        };
        machine.config.flocker.cluster_cert = write("cluster.crt", &stranger.certificate().to_pem().unwrap());
        machine.config.flocker.user_cert = write("plugin.crt", &user.certificate_pem().unwrap());
        machine.config.flocker.user_key = write("plugin.key", &user.key_pem().unwrap());
        assert_unavailable(&machine, &[&flocker.embedded().address().to_string(), "cluster"]).await;
    });
}

#[test]
fn a_control_service_of_another_name_is_not_trusted() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let mut machine = Machine::new(&flocker, 1);
        machine.config.flocker.server_name = "another-name".to_owned();
        assert_unavailable(&machine, &["another-name", "expected name"]).await;
    });
}

#[test]
fn an_unreachable_flocker_is_named() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let address = flocker.embedded().address().to_string();
        flocker.stop().await;
        assert_unavailable(&machine, &[&address, "refused"]).await;
    });
}
