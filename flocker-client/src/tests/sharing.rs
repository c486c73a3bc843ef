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

/// The maximum number of connections: for two reads and three writes.
const LIMIT: usize = 5;
/// A dataset whose requests are never answered.
const HANGING: Uuid = Uuid::from_u128(0xdead);

/// Answers every request but those for [`HANGING`].
fn server() -> Server {
    Server::start(stock_tls(&V1), |request| {
        let hanging = HANGING.to_string();
        if request.path.contains(&hanging) || String::from_utf8_lossy(&request.body).contains(&hanging) {
            Reply::Silence
        } else if request.path == "/v1/version" {
            Reply::ok(r#"{"flocker": "1.15.0"}"#)
        } else {
            let dataset = format!(
                r#"{{"dataset_id": "{NODE}", "primary": "{NODE}", "metadata": {{}}, "deleted": true}}"#
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

/// Waits until that many requests hang.
async fn until_hanging(server: &Server, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let requests = server.requests();
        let hanging = requests
            .iter()
            .filter(|request| String::from_utf8_lossy(&request.body).contains(&HANGING.to_string()));
        if hanging.count() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{:?}", server.calls());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Sends that many concurrent reads and writes.
async fn send_concurrently(client: &Client, callers: usize) {
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
async fn concurrent_requests_share_a_few_connections() {
    let server = server();
    let client = client(server.address, V1.credentials());
    for _ in 0..3 {
        send_concurrently(&client, 64).await;
    }
    assert_eq!(server.requests().len(), 3 * 64);
    assert!(server.accepted() <= LIMIT, "{}", server.accepted());
}

#[tokio::test]
async fn connections_stay_open_and_are_used_again() {
    let server = server();
    let client = client(server.address, V1.credentials());
    send_concurrently(&client, 64).await;
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
async fn hanging_writes_delay_no_read_and_return_their_permits_when_they_are_dropped() {
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
    assert!(early.is_err(), "every permit for a write is taken");
    // A dropped request returns its permit.
    hung.swap_remove(1).abort();
    waiting.await.unwrap();
    for hung in hung {
        hung.abort();
    }
}

#[tokio::test]
async fn the_wait_for_a_permit_does_not_count_towards_the_time_out() {
    let server = server();
    let timeout = Duration::from_secs(2);
    let settings = crate::ClientSettings {
        timeout,
        ..settings(server.address, V1.credentials())
    };
    let client = Client::new(settings).unwrap();
    let mut requests = JoinSet::new();
    // Three of them time out, and then the other three, before the deletion gets a permit.
    for _ in 0..6 {
        let client = client.clone();
        requests.spawn(async move { client.create_dataset(&hanging()).await.is_err() });
    }
    until_hanging(&server, 3).await;
    client.delete_dataset(NODE).await.unwrap();
    assert_eq!(requests.join_all().await, [true; 6]);
}
