//! Injected faults of requests, as a client observes them through real TLS.

use std::fs;
use std::time::Duration;

use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, Effect, FaultPlan, Flicker, RequestFault};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Cluster, eventually, for_a_while, isolated, options};

const DATASETS: &str = "/v1/configuration/datasets";
const LEASES: &str = "/v1/configuration/leases";
const VERSION: &str = "/v1/version";

/// The body of a request for a lease, on a dataset that need not exist.
fn lease() -> Value {
    json!({"dataset_id": Uuid::new_v4(), "node_uuid": Uuid::new_v4(), "expires": null})
}

async fn leases(cluster: &Cluster) -> usize {
    let list = cluster.client.get(LEASES).await.json();
    list.as_array().unwrap().len()
}

/// Requests a lease whose answer is lost, and checks that the client observes a failed connection.
async fn fail_to_lease(cluster: &Cluster) {
    let (client, body) = (&cluster.client, lease());
    let error = client
        .attempt(Method::POST, LEASES, |request| request.json(&body))
        .await
        .unwrap_err();
    assert!(error.is_request(), "{error:?}");
    assert_eq!(error.status(), None);
}

#[test]
fn a_lost_request_is_not_carried_out_and_the_client_sees_its_connection_closed() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let faults = cluster.flocker.faults();
        faults.add(
            RequestFault::new("lost", Effect::LoseRequest)
                .on("POST", LEASES)
                .once(),
        );
        fail_to_lease(&cluster).await;
        assert_eq!(faults.met("lost"), 1);
        assert_eq!(leases(&cluster).await, 0);
        assert_eq!(cluster.client.post(LEASES, &lease()).await.status, 201);
        assert_eq!(faults.met("lost"), 1, "only the first one");

        let counters = cluster.flocker.counters();
        assert_eq!(counters.answered("POST", LEASES, 0), 1);
        assert_eq!(counters.answered("POST", LEASES, 201), 1);
        assert!(counters.connections >= 2, "the first one was closed");
    });
}

#[test]
fn a_request_whose_reply_is_lost_is_carried_out() {
    isolated(async |directory| {
        let faults = FaultPlan {
            requests: vec![
                RequestFault::new("lost", Effect::LoseReply)
                    .on("POST", LEASES)
                    .once(),
            ],
            ..FaultPlan::default()
        };
        let cluster = Cluster::start_with(Options {
            faults,
            ..options(&directory)
        })
        .await;
        fail_to_lease(&cluster).await;
        assert_eq!(leases(&cluster).await, 1);
    });
}

#[test]
fn an_answer_can_be_replaced_and_then_nothing_is_carried_out() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let body = r#""a-log-id@/2""#.to_owned();
        let answer = Effect::Answer {
            status: 500,
            body: body.clone(),
        };
        cluster
            .flocker
            .faults()
            .add(RequestFault::new("broken", answer).on("POST", LEASES));
        for _ in 0..2 {
            let answer = cluster.client.post(LEASES, &lease()).await;
            assert_eq!((answer.status, &answer.text), (500, &body));
            assert_eq!(answer.header("Content-Type"), Some("application/json"));
        }
        assert_eq!(cluster.client.get(VERSION).await.status, 200, "another route");
        cluster.flocker.faults().clear();
        assert_eq!(cluster.client.post(LEASES, &lease()).await.status, 201);
        assert_eq!(leases(&cluster).await, 1);
    });
}

#[test]
fn a_held_request_is_carried_out_when_its_rule_is_removed() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let faults = cluster.flocker.faults();
        faults.add(RequestFault::new("held", Effect::HoldRequest).on("POST", LEASES));
        let held = cluster.client.post_later(LEASES, lease());
        faults.until_met("held", 1).await;
        for_a_while("it is neither carried out nor answered", async || {
            leases(&cluster).await == 0 && !held.is_finished()
        })
        .await;
        assert_eq!(
            cluster.flocker.counters().most_requests,
            2,
            "the held one and a list"
        );

        faults.remove("held");
        assert_eq!(held.await.unwrap().unwrap().status, 201);
        assert_eq!(leases(&cluster).await, 1);
    });
}

#[test]
fn a_held_request_is_carried_out_even_if_its_client_has_disconnected() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let faults = cluster.flocker.faults();
        faults.add(RequestFault::new("held", Effect::HoldRequest).on("POST", LEASES));
        let held = cluster.client.post_later(LEASES, lease());
        faults.until_met("held", 1).await;
        held.abort();
        eventually("the connection is closed", async || {
            cluster.flocker.counters().open_connections == 0
        })
        .await;
        assert_eq!(leases(&cluster).await, 0);

        faults.remove("held");
        eventually("it is carried out", async || leases(&cluster).await == 1).await;
    });
}

#[test]
fn a_request_whose_reply_is_held_has_been_carried_out() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let faults = cluster.flocker.faults();
        faults.add(RequestFault::new("held", Effect::HoldReply).on("POST", LEASES));
        let held = cluster.client.post_later(LEASES, lease());
        faults.until_met("held", 1).await;
        assert_eq!(leases(&cluster).await, 1);
        assert!(!held.is_finished());
        faults.remove("held");
        assert_eq!(held.await.unwrap().unwrap().status, 201);
    });
}

#[test]
fn a_delayed_request_is_carried_out_and_answered_later() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let faults = cluster.flocker.faults();
        // Longer than the test; only its end ends the delay.
        let day = Duration::from_secs(24 * 60 * 60);
        faults.add(RequestFault::new("slow", Effect::Delay(day)).once());
        faults.change(|plan| {
            let short = Effect::Delay(Duration::from_millis(50));
            plan.requests.push(RequestFault::new("short", short));
        });
        let slow = cluster.client.post_later(LEASES, lease());
        faults.until_met("slow", 1).await;
        assert_eq!(cluster.client.post(LEASES, &lease()).await.status, 201);
        assert_eq!(leases(&cluster).await, 1);
        assert_eq!(faults.met("short"), 2);
        assert!(!slow.is_finished());
    });
}

#[test]
fn a_rule_chooses_requests_by_their_text_and_number() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let (one, other) = (cluster.create(1, crate::support::SIZE).await, Uuid::new_v4());
        let gone = Effect::Answer {
            status: 404,
            body: "{}".to_owned(),
        };
        cluster.flocker.faults().set(FaultPlan {
            requests: vec![RequestFault {
                containing: Some(one.to_string()),
                after: 1,
                ..RequestFault::new("gone", gone).on("POST", &format!("{DATASETS}/{{dataset_id}}"))
            }],
            ..FaultPlan::default()
        });
        for (dataset, status) in [(one, 200), (other, 404), (one, 404), (one, 404)] {
            let path = format!("{DATASETS}/{dataset}");
            let body = json!({"primary": cluster.node(1).uuid});
            assert_eq!(cluster.client.post(&path, &body).await.status, status);
        }
        assert_eq!(cluster.flocker.faults().met("gone"), 2);
    });
}

#[test]
fn a_stop_ends_what_a_rule_holds() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let faults = cluster.flocker.faults().clone();
        faults.add(RequestFault::new("held", Effect::HoldRequest).on("POST", LEASES));
        let held = cluster.client.post_later(LEASES, lease());
        faults.until_met("held", 1).await;
        cluster.flocker.stop().await.unwrap();
        assert!(held.await.unwrap().is_err());
        // The next process locks the data directory, so no task of this one still runs.
        let next = Cluster::start(&directory, 1).await;
        faults.clear();
        assert_eq!(leases(&next).await, 0);
    });
}

#[test]
fn connections_and_requests_are_counted() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        for _ in 0..5 {
            assert_eq!(cluster.client.get(VERSION).await.status, 200);
        }
        let counters = cluster.flocker.counters();
        assert_eq!(counters.asked("GET", VERSION), 5);
        assert_eq!(counters.most_requests, 1);
        assert!(counters.open_connections >= 1);

        let faults = cluster.flocker.faults();
        faults.add(RequestFault::new("held", Effect::HoldReply).on("POST", LEASES));
        let held = [lease(), lease(), lease()].map(|body| cluster.client.post_later(LEASES, body));
        faults.until_met("held", 3).await;
        let counters = cluster.flocker.counters();
        assert_eq!(counters.most_requests, 3);
        assert!(counters.open_connections >= 3, "{counters:?}");
        faults.clear();
        for held in held {
            assert_eq!(held.await.unwrap().unwrap().status, 201);
        }

        let Cluster { flocker, client } = cluster;
        drop(client);
        eventually("no connection is left", async || {
            flocker.counters().open_connections == 0
        })
        .await;
        let counters = flocker.counters();
        assert!(counters.most_connections >= 3 && counters.connections >= counters.most_connections);
    });
}

#[test]
fn unsettled_or_all_datasets_can_be_missing_from_every_second_answer() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 2).await;
        let (stays, moves) = (cluster.create_mounted(1).await, cluster.create_mounted(1).await);
        assert_eq!(cluster.lease(moves, 1).await.status, 201);
        cluster.relocate(moves, 2).await;
        let show = async |flicker, answers: usize| {
            cluster.flocker.faults().change(|plan| plan.flicker = flicker);
            let mut shown = Vec::new();
            for _ in 0..answers {
                let list = cluster.client.get("/v1/state/datasets").await.json();
                let ids: Vec<_> = list
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|entry| &entry["dataset_id"])
                    .collect();
                shown.push([stays, moves].map(|dataset| ids.contains(&&json!(dataset))));
            }
            shown
        };
        let (both, settled, none) = ([true, true], [true, false], [false, false]);
        assert_eq!(show(Flicker::Off, 2).await, [both, both]);
        assert_eq!(show(Flicker::Unsettled, 4).await, [settled, both, settled, both]);
        assert_eq!(show(Flicker::All, 4).await, [none, both, none, both]);
        assert_eq!(show(Flicker::Off, 2).await, [both, both]);
    });
}

#[test]
fn a_plan_in_a_file_is_read_again_when_it_changes_and_a_mistake_leaves_the_last_valid_one() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let (file, new) = (directory.join("plan.json"), directory.join("plan.json.new"));
        let replace = |text: &str| {
            fs::write(&new, text).unwrap();
            fs::rename(&new, &file).unwrap();
        };
        let faults = cluster.flocker.faults().clone();
        replace(r#"{"nodes": {"1": {"agent": "stopped"}}}"#);
        let following = {
            let (faults, file) = (faults.clone(), file.clone());
            tokio::spawn(async move { faults.follow(&file).await })
        };
        let agent = || faults.plan().nodes.get(&1).map(|node| node.agent);
        eventually("it is read", async || agent() == Some(AgentState::Stopped)).await;
        replace(r#"{"nodes": {"1": {"agent": "gone"}}}"#);
        for_a_while("the good one stays", async || {
            agent() == Some(AgentState::Stopped)
        })
        .await;
        replace(r#"{"flicker": "all"}"#);
        eventually("it is read again", async || {
            faults.plan().flicker == Flicker::All && agent().is_none()
        })
        .await;
        following.abort();
    });
}
