//! Where new volumes are created when the orchestrator says where they will be used.

use std::collections::HashMap;
use std::slice::from_ref;
use std::time::Duration;

use csi_proto::v1::controller_server::Controller;
use csi_proto::v1::{
    CreateVolumeRequest, GetCapacityRequest, GetCapacityResponse, Topology, TopologyRequirement,
};
use flocker_csi::controller::ControllerService;
use flocker_csi::flocker::provisioning::{Pool, ProvisioningSettings};
use flocker_csi::volume::TopologyKey;
use flocker_embedded::Options;
use flocker_embedded::faults::AgentState;
use futures::future::join_all;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use super::{DRIVER, MIB, controller, create, only, publish, settings, wanted};
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::namespace::in_own_namespace;

const KEY: &str = "flocker.csi.clusterhq.com/node";
const DATASETS: &str = "/v1/configuration/datasets";

/// Returns the settings of a plugin with `topology = hint`.
fn hint() -> ProvisioningSettings {
    ProvisioningSettings {
        topology: Some(TopologyKey::of(DRIVER)),
        ..settings()
    }
}

fn topology(segments: &[(&str, &str)]) -> Topology {
    let segments: HashMap<_, _> = segments
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    Topology { segments }
}

fn on(node: Uuid) -> Topology {
    topology(&[(KEY, &node.to_string())])
}

/// Returns a request for a volume of 64 MiB with these requirements.
fn wanted_on(name: &str, preferred: &[Topology], requisite: &[Topology]) -> CreateVolumeRequest {
    CreateVolumeRequest {
        accessibility_requirements: Some(TopologyRequirement {
            requisite: requisite.to_vec(),
            preferred: preferred.to_vec(),
        }),
        ..wanted(name, 64)
    }
}

/// Creates the volume and returns its node, by number.
async fn node_of(flocker: &Flocker, controller: &ControllerService, request: CreateVolumeRequest) -> usize {
    let volume = create(controller, request).await.unwrap();
    assert_eq!(
        volume.accessible_topology,
        [],
        "a volume can be used on every node"
    );
    let datasets = flocker.datasets().await;
    let dataset = datasets
        .iter()
        .find(|dataset| dataset.dataset_id.to_string() == volume.volume_id)
        .unwrap();
    let nodes = 1..=flocker.embedded().nodes().len();
    nodes
        .into_iter()
        .find(|number| flocker.node(*number) == dataset.primary)
        .unwrap()
}

/// Returns the node of two that an empty cluster's first volume is created on if nothing is preferred, and the other one,
/// by number.
fn first_and_other(flocker: &Flocker) -> (usize, usize) {
    if flocker.node(1) < flocker.node(2) {
        (1, 2)
    } else {
        (2, 1)
    }
}

#[test]
fn a_new_volume_is_created_on_the_first_preferred_node_then_on_a_requisite_one() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(3).await;
        let controller = controller(&flocker, hint());
        let [one, two, three] = [1, 2, 3].map(|number| on(flocker.node(number)));
        let unknown = on(Uuid::new_v4());
        let elsewhere = topology(&[("topology.kubernetes.io/zone", "eu-1")]);
        let created = async |name, preferred: &[Topology], requisite: &[Topology]| {
            node_of(&flocker, &controller, wanted_on(name, preferred, requisite)).await
        };
        let all = [one.clone(), two.clone(), three.clone()];
        assert_eq!(created("a", &[three.clone(), one.clone()], &all).await, 3);
        assert_eq!(
            created("b", &[three.clone(), one], &all).await,
            3,
            "whatever its load"
        );
        assert_eq!(
            created("c", &[unknown.clone(), two.clone()], &all).await,
            2,
            "the next one"
        );
        assert_eq!(created("d", &[], &[unknown.clone(), three]).await, 3);
        assert_eq!(
            created("e", from_ref(&unknown), from_ref(&unknown)).await,
            1,
            "it is a hint: the least loaded node, and no error"
        );
        assert_eq!(
            created("f", &[elsewhere, topology(&[]), two.clone()], &[]).await,
            2,
            "unknown keys have no meaning"
        );
        let with_zone = topology(&[
            ("topology.kubernetes.io/zone", "eu-1"),
            (
                "FLOCKER.csi.clusterhq.com/NODE",
                &two.segments[KEY].to_uppercase(),
            ),
        ]);
        assert_eq!(created("g", &[with_zone], &[]).await, 2);
        let none = node_of(&flocker, &controller, wanted("h", 64)).await;
        assert_eq!(none, 1, "without requirements the least loaded node");
        flocker.stop().await;
    });
}

#[test]
fn a_volume_on_its_preferred_node_is_attached_there_without_a_move() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let (_, other) = first_and_other(&flocker);
        let moves = async |name, settings| {
            let controller = controller(&flocker, settings);
            let preferred = wanted_on(name, &[on(flocker.node(other))], &[]);
            let volume = create(&controller, preferred).await.unwrap();
            let move_dataset = format!("{DATASETS}/{{dataset_id}}");
            let moved = || flocker.embedded().counters().answered("POST", &move_dataset, 200);
            let before = moved();
            publish(&controller, &volume.volume_id, flocker.node(other))
                .await
                .unwrap();
            moved() - before
        };
        assert_eq!(moves("off", settings()).await, 1);
        assert_eq!(moves("hint", hint()).await, 0);
        flocker.stop().await;
    });
}

#[test]
fn a_retry_with_another_preference_finds_the_volume_where_it_is() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(3).await;
        let controllers = [controller(&flocker, hint()), controller(&flocker, hint())];
        // Two processes, and callers that want one volume on different nodes at the same time.
        let calls = (0..24).map(|number| {
            let preferred = on(flocker.node(1 + number % 3));
            create(&controllers[number % 2], wanted_on("data", &[preferred], &[]))
        });
        let volumes: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert!(volumes.iter().all(|volume| *volume == volumes[0]));
        let posted = |route| flocker.embedded().counters().answered("POST", route, 201);
        assert_eq!(posted(DATASETS), 1);
        let created_on = flocker.datasets().await[0].primary;
        for number in 1..=3 {
            let again = wanted_on("data", &[on(flocker.node(number))], &[on(flocker.node(number))]);
            assert_eq!(create(&controllers[0], again).await.unwrap(), volumes[0]);
        }
        let datasets = flocker.datasets().await;
        assert_eq!(datasets.len(), 1);
        assert_eq!(datasets[0].primary, created_on, "it is not moved");
        flocker.stop().await;
    });
}

#[test]
fn a_preferred_node_that_does_not_report_or_is_full_is_passed_over() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::with(|options| Options {
            nodes: 3,
            node_expiry: Some(Duration::from_secs(1)),
            ..options
        })
        .await;
        let pools = vec![Pool {
            profile: None,
            capacity: 128 << 20,
            per_node: true,
        }];
        let controller = controller(&flocker, ProvisioningSettings { pools, ..hint() });
        let prefer = |numbers: &[usize]| -> Vec<_> {
            numbers.iter().map(|number| on(flocker.node(*number))).collect()
        };
        let faults = flocker.embedded().faults();
        faults.change(|plan| plan.nodes.entry(3).or_default().agent = AgentState::Stopped);
        let (client, silent) = (flocker.client().await, flocker.node(3));
        eventually("the third node is no longer listed", async || {
            let nodes = client.list_nodes().await.unwrap();
            nodes.iter().all(|node| node.uuid != silent).then_some(())
        })
        .await;
        let created = async |name: &str, numbers: &[usize]| {
            let request = wanted_on(name, &prefer(numbers), &prefer(numbers));
            node_of(&flocker, &controller, request).await
        };
        assert_eq!(created("a", &[3, 2]).await, 2);
        assert_eq!(created("b", &[2]).await, 2);
        assert_eq!(created("c", &[2]).await, 1, "the second node's pool is full");
        let refused = create(&controller, wanted_on("too large", &prefer(&[3]), &[]))
            .await
            .map(drop);
        assert_eq!(
            refused.map_err(|status| status.code()),
            Ok(()),
            "one is left on the first"
        );
        let full = create(&controller, wanted_on("one more", &prefer(&[3]), &[])).await;
        assert_eq!(full.unwrap_err().code(), Code::ResourceExhausted);
        flocker.stop().await;
    });
}

#[test]
fn a_node_that_is_no_uuid_is_refused_before_anything_is_made() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(1).await;
        let controller = controller(&flocker, hint());
        let wrong = topology(&[(KEY, "worker-3")]);
        for (field, request) in [
            ("preferred", wanted_on("data", from_ref(&wrong), &[])),
            ("requisite", wanted_on("data", &[], from_ref(&wrong))),
        ] {
            let refused = create(&controller, request).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument);
            let field = format!("accessibility_requirements.{field}");
            for part in ["\"data\"", &field, KEY, "\"worker-3\"", "NodeGetInfo"] {
                assert!(refused.message().contains(part), "{part}: {}", refused.message());
            }
        }
        let refused = capacity(&controller, Some(wrong)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(flocker.datasets().await, []);
        flocker.stop().await;
    });
}

#[test]
fn a_plugin_of_one_node_creates_there_whatever_is_preferred() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let of_one = ProvisioningSettings {
            scope: only(flocker.node(1)),
            pools: vec![Pool {
                profile: None,
                capacity: 128 << 20,
                per_node: true,
            }],
            ..hint()
        };
        let controller = controller(&flocker, of_one);
        let other = on(flocker.node(2));
        let request = wanted_on("data", from_ref(&other), from_ref(&other));
        assert_eq!(node_of(&flocker, &controller, request).await, 1);
        let left = capacity(&controller, Some(other)).await.unwrap();
        assert_eq!(left.available_capacity, 64 * MIB, "that of the only node");
        flocker.stop().await;
    });
}

#[test]
fn with_topology_off_nothing_of_it_is_read() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let pools = vec![Pool {
            profile: None,
            capacity: 128 << 20,
            per_node: true,
        }];
        let controller = controller(&flocker, ProvisioningSettings { pools, ..settings() });
        let wrong = topology(&[(KEY, "worker-3")]);
        let (first, other) = first_and_other(&flocker);
        let preferred = [on(flocker.node(other)), wrong.clone()];
        let request = wanted_on("data", &preferred, &preferred);
        assert_eq!(node_of(&flocker, &controller, request).await, first);
        for asked in [None, Some(wrong), Some(on(flocker.node(other)))] {
            let left = capacity(&controller, asked).await.unwrap();
            assert_eq!(left.available_capacity, 192 * MIB, "that of both nodes");
        }
        flocker.stop().await;
    });
}

#[test]
fn the_capacity_of_one_node_is_that_of_its_pool() {
    in_own_namespace(|| async {
        let mut flocker = Flocker::start(2).await;
        let nodes = [1, 2].map(|number| on(flocker.node(number)));
        let pool = |per_node| Pool {
            profile: None,
            capacity: 640 << 20,
            per_node,
        };
        let with = |per_node| ProvisioningSettings {
            pools: vec![pool(per_node)],
            ..hint()
        };
        let controllers = [false, true].map(|per_node| controller(&flocker, with(per_node)));
        let request = wanted_on("data", &nodes[..1], &[]);
        create(&controllers[0], request).await.unwrap();
        let left = async |of: usize, topology: Option<Topology>| {
            let left = capacity(&controllers[of], topology).await.unwrap();
            let largest = left.maximum_volume_size.unwrap_or(0);
            (left.available_capacity / MIB, largest / MIB)
        };
        let [one, two] = nodes.clone().map(Some);
        let other_key = Some(topology(&[("topology.kubernetes.io/zone", "eu-1")]));
        let gone = Some(on(Uuid::new_v4()));
        for any in [None, one.clone(), two.clone(), other_key.clone(), gone.clone()] {
            assert_eq!(left(0, any).await, (576, 576), "one pool for all nodes");
        }
        assert_eq!(left(1, None).await, (1216, 640));
        assert_eq!(left(1, other_key).await, (1216, 640));
        assert_eq!(left(1, one.clone()).await, (576, 576));
        assert_eq!(left(1, two.clone()).await, (640, 640));
        assert_eq!(left(1, gone).await, (0, 0));
        flocker.stop().await;
        for (asked, last) in [(None, (1216, 640)), (one, (576, 576)), (two, (640, 640))] {
            let known = capacity(&controllers[1], asked).await.unwrap();
            assert_eq!(known.available_capacity / MIB, last.0, "the last known value");
        }
    });
}

async fn capacity(
    controller: &ControllerService,
    accessible_topology: Option<Topology>,
) -> Result<GetCapacityResponse, Status> {
    let request = GetCapacityRequest {
        accessible_topology,
        ..Default::default()
    };
    let answer = controller.get_capacity(Request::new(request)).await?;
    Ok(answer.into_inner())
}
