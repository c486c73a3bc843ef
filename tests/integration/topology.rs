//! The setting `topology`, as clients of both versions of CSI see it.

use csi_proto::{v0, v1};
use flocker_csi::volume::Topology;
use uuid::Uuid;

use crate::support::csi::{Csi, to_create};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::tcp_proxy::TcpProxy;

const KEY: &str = "flocker.csi.clusterhq.com/node";

/// What a client sees of topology: the numbers of the announced services, and the node's segments.
#[derive(Debug, PartialEq)]
struct Seen {
    services: Vec<i32>,
    segments: Option<Vec<(String, String)>>,
}

fn seen(topology: Topology, node: Uuid) -> Seen {
    match topology {
        Topology::Off => Seen {
            services: vec![1],
            segments: None,
        },
        Topology::Hint => Seen {
            services: vec![1, 2],
            segments: Some(vec![(KEY.to_owned(), node.to_string())]),
        },
    }
}

async fn seen_in_v1(csi: &Csi) -> Seen {
    let request = v1::GetPluginCapabilitiesRequest {};
    let plugin = csi.identity().get_plugin_capabilities(request).await.unwrap();
    let services = plugin.into_inner().capabilities.into_iter();
    let services = services.map(|capability| match capability.r#type.unwrap() {
        v1::plugin_capability::Type::Service(service) => service.r#type,
        v1::plugin_capability::Type::VolumeExpansion(other) => panic!("{other:?}"),
    });
    Seen {
        services: services.collect(),
        segments: info(csi)
            .await
            .map(|topology| topology.segments.into_iter().collect()),
    }
}

async fn info(csi: &Csi) -> Option<v1::Topology> {
    let info = csi.node().node_get_info(v1::NodeGetInfoRequest {}).await.unwrap();
    info.into_inner().accessible_topology
}

async fn seen_in_v0(csi: &Csi) -> Seen {
    let mut identity = v0::identity_client::IdentityClient::new(csi.channel());
    let request = v0::GetPluginCapabilitiesRequest {};
    let plugin = identity.get_plugin_capabilities(request).await.unwrap();
    let services = plugin.into_inner().capabilities.into_iter();
    let services = services.map(|capability| match capability.r#type.unwrap() {
        v0::plugin_capability::Type::Service(service) => service.r#type,
    });
    let mut node = v0::node_client::NodeClient::new(csi.channel());
    let info = node.node_get_info(v0::NodeGetInfoRequest {}).await.unwrap();
    let topology = info.into_inner().accessible_topology;
    Seen {
        services: services.collect(),
        segments: topology.map(|topology| topology.segments.into_iter().collect()),
    }
}

async fn primary_of(flocker: &Flocker, volume_id: &str) -> Uuid {
    let datasets = flocker.datasets().await;
    let found = datasets
        .iter()
        .find(|dataset| dataset.dataset_id.to_string() == volume_id);
    found.unwrap().primary
}

#[test]
fn topology_is_announced_and_served_in_both_versions_only_where_it_is_on() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let mut machine = Machine::new(&flocker, 1);
        let segments: std::collections::HashMap<_, _> =
            [(KEY.to_owned(), flocker.node(2).to_string())].into();
        for topology in [Topology::Off, Topology::Hint] {
            machine.config.plugin.topology = topology;
            let plugin = machine.plugin().await;
            let csi = &plugin.csi;
            assert_eq!(seen_in_v1(csi).await, seen(topology, machine.node()));
            assert_eq!(seen_in_v0(csi).await, seen(topology, machine.node()));

            let new = |name: &str| v1::CreateVolumeRequest {
                accessibility_requirements: Some(v1::TopologyRequirement {
                    requisite: Vec::new(),
                    preferred: vec![v1::Topology {
                        segments: segments.clone(),
                    }],
                }),
                ..to_create(&format!("{topology:?}-{name}"))
            };
            let old = |name: &str| {
                let v1::CreateVolumeRequest { name, .. } = new(name);
                let capability = v0::VolumeCapability {
                    access_mode: Some(v0::volume_capability::AccessMode { mode: 1 }),
                    access_type: Some(v0::volume_capability::AccessType::Mount(
                        v0::volume_capability::MountVolume::default(),
                    )),
                };
                v0::CreateVolumeRequest {
                    name,
                    volume_capabilities: vec![capability],
                    accessibility_requirements: Some(v0::TopologyRequirement {
                        requisite: Vec::new(),
                        preferred: vec![v0::Topology {
                            segments: segments.clone(),
                        }],
                    }),
                    ..Default::default()
                }
            };
            let created = csi.controller().create_volume(new("v1")).await.unwrap();
            let created = created.into_inner().volume.unwrap();
            assert_eq!(created.accessible_topology, []);
            let first = primary_of(&flocker, &created.volume_id).await;
            // Volumes are created in turns where nothing is preferred: the second of two is on the other node.
            let mut controller = v0::controller_client::ControllerClient::new(csi.channel());
            let created = controller.create_volume(old("v0")).await.unwrap();
            let created = created.into_inner().volume.unwrap();
            assert_eq!(created.accessible_topology, []);
            let second = primary_of(&flocker, &created.id).await;
            match topology {
                Topology::Off => assert_ne!(first, second),
                Topology::Hint => assert_eq!([first, second], [flocker.node(2); 2]),
            }
            plugin.stop().await;
        }
    });
}

#[test]
fn a_node_reports_its_topology_also_while_flocker_is_down() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let proxy = TcpProxy::to(flocker.embedded().address()).await;
        let mut machine = Machine::through(proxy.address(), &flocker, 1);
        let expected = Some(v1::Topology {
            segments: [(KEY.to_owned(), machine.node().to_string())].into(),
        });
        machine.config.plugin.topology = Topology::Hint;
        // Flocker names the node, by the boot id of the machine.
        machine.config.node.node_id = None;
        let plugin = machine.plugin().await;
        assert_eq!(info(&plugin.csi).await, expected);
        plugin.stop().await;
        proxy.close();
        let plugin = machine.plugin().await;
        assert_eq!(info(&plugin.csi).await, expected);
        plugin.stop().await;
    });
}
