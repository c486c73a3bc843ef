//! A control service that moves.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use flocker_client::ClientSettings;
use flocker_csi::flocker::cluster::{self, Cluster, Lists};
use flocker_embedded::Options;
use rustix::mount::mount_bind;

use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

#[test]
fn a_control_service_that_changes_its_address_behind_its_name_is_found() {
    in_own_namespace(|| async {
        let listen = SocketAddr::from((THERE, 0));
        let flocker = Flocker::with(|options| Options { listen, ..options }).await;
        let there = flocker.embedded().address();
        let proxy = TcpProxy::at((HERE, there.port()).into(), there).await;
        let hosts = flocker.path().join("hosts");
        let lead_to = |address: Ipv4Addr| fs::write(&hosts, format!("{address} flocker.test\n")).unwrap();
        lead_to(HERE);
        mount_bind(&hosts, "/etc/hosts").unwrap();
        let settings = ClientSettings {
            control_service: format!("https://flocker.test:{}", there.port()).parse().unwrap(),
            ..flocker.settings()
        };
        let cluster = Cluster::new(
            cluster::Flocker::new(settings),
            std::time::Duration::from_secs(180),
        );
        cluster.fresh(Lists::NODES).await.unwrap();

        proxy.close();
        let gone = cluster.fresh(Lists::NODES).await.unwrap_err();
        assert!(gone.chain().contains("flocker.test"), "{}", gone.chain());
        lead_to(THERE);
        cluster.fresh(Lists::NODES).await.unwrap();
        let before = flocker.embedded().counters();
        for _ in 0..10 {
            cluster.fresh(Lists::NODES).await.unwrap();
        }
        assert_eq!(flocker.embedded().counters().connections, before.connections);
    });
}
