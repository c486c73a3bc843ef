//! How requests share the few connections.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use super::{
    NODE, client, new_dataset,
    pki::V1,
    server::{Reply, Server, stock_tls},
    settings,
};
use crate::{Client, NewDataset};

/// The most connections that are made at once: for two reads and three writes.
const AT_MOST: usize = 5;
/// A dataset whose requests are never answered.
const HANGING: Uuid = Uuid::from_u128(0xdead);

/// Answers everything but what is about [`HANGING`].
fn server() -> Server {
    Server::start(stock_tls(&V1), |request| {
        let hanging = HANGING.to_string();
        if request.path.contains(&hanging) || String::from_utf8_lossy(&request.body).contains(&hanging) {
            Reply::Silence
        } else if request.path == "/v1/version" {
            Reply::ok(r#"{"flocker": "1.15.0"}"#)
        } else {
            let dataset = format!(
                r#"{{"dataset_id": "{NODE}", "primary": "{NODE}", "metadata": {{}}, "deleted": false}}"#
            );
            Reply::ok(dataset)
        }
    })
}

fn hanging() -> NewDataset {
    NewDataset {
        dataset_id: Some(HANGING),
        ..new_dataset()
    }
}

/// Waits until the server has got that many requests that hang.
async fn until_hanging(server: &Server, count: usize) {
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let requests = server.requests();
        let hanging = requests
            .iter()
            .filter(|request| String::from_utf8_lossy(&request.body).contains(&HANGING.to_string()));
        if hanging.count() == count {
            return;
        }
        assert!(Instant::now() < give_up, "{:?}", server.calls());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Makes that many reads and writes at once.
async fn crowd(client: &Client, callers: usize) {
    let mut requests = JoinSet::new();
    for number in 0..callers {
        let client = client.clone();
        requests.spawn(async move {
            if number % 2 == 0 {
                client.version().await.map(drop)
            } else {
                client.delete_dataset(NODE).await.map(drop)
            }
        });
    }
    for answer in requests.join_all().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn a_crowd_shares_a_few_connections() {
    let server = server();
    let client = client(server.address, V1.credentials());
    for _ in 0..3 {
        crowd(&client, 64).await;
    }
    assert_eq!(server.requests().len(), 3 * 64);
    assert!(server.accepted() <= AT_MOST, "{}", server.accepted());
}

#[tokio::test]
async fn the_connections_of_a_crowd_are_kept_and_used_again() {
    let server = server();
    let client = client(server.address, V1.credentials());
    crowd(&client, 64).await;
    let made = server.accepted();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::time::resume();
    for _ in 0..10 {
        client.version().await.unwrap();
    }
    assert_eq!(server.accepted(), made);
}

#[tokio::test]
async fn writes_that_hang_keep_neither_reads_nor_each_others_places_for_ever() {
    let server = server();
    let client = client(server.address, V1.credentials());
    let mut hung: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.create_dataset(&hanging()).await })
        })
        .collect();
    until_hanging(&server, 3).await;
    client.version().await.unwrap();

    let waiting = client.delete_dataset(NODE);
    tokio::pin!(waiting);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "every place for a write is taken");
    // A caller that gives up frees its place.
    hung.swap_remove(1).abort();
    waiting.await.unwrap();
    for hung in hung {
        hung.abort();
    }
}

#[tokio::test]
async fn time_spent_waiting_for_a_place_is_not_the_requests_own() {
    let server = server();
    let timeout = Duration::from_secs(2);
    let settings = crate::Settings {
        timeout,
        ..settings(server.address, V1.credentials())
    };
    let client = Client::new(settings).unwrap();
    let mut requests = JoinSet::new();
    // Two rounds of them time out, one after the other, before it is the last one's turn.
    for _ in 0..6 {
        let client = client.clone();
        requests.spawn(async move { client.create_dataset(&hanging()).await.is_err() });
    }
    until_hanging(&server, 3).await;
    client.delete_dataset(NODE).await.unwrap();
    assert_eq!(requests.join_all().await, [true; 6]);
}
