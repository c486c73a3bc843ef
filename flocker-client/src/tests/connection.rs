//! Connections: their number, their addresses, and what happens when they are closed.

use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{
    NODE, client, full_message, new_dataset,
    pki::V1,
    server::{Reply, Server, mute, stock_tls},
    settings,
};
use crate::{Client, ClientSettings, Error, NewDataset, TransportKind};

/// Answers each look-up with the next of its addresses.
struct AddressSequence(Mutex<VecDeque<IpAddr>>);

impl Resolve for AddressSequence {
    fn resolve(&self, _name: Name) -> Resolving {
        let next = self.0.lock().unwrap().pop_front();
        Box::pin(async move {
            let ip = next.ok_or("one look-up too many")?;
            Ok(Box::new(std::iter::once(SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// Returns a handler that closes the connection under the requests with these numbers, counted from 0.
fn closing_on(numbers: &'static [usize]) -> impl Fn(&super::server::Request) -> Reply {
    let count = AtomicUsize::new(0);
    move |_| {
        if numbers.contains(&count.fetch_add(1, Ordering::SeqCst)) {
            Reply::Close
        } else {
            Reply::ok(r#"{"flocker": "1.15.0"}"#)
        }
    }
}

fn kind(error: &Error) -> TransportKind {
    match error {
        Error::Transport {
            kind: TransportKind::Other,
            ..
        } => panic!("{error:?}"),
        Error::Transport { kind, .. } => *kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::of_version(stock_tls(&V1));
    let client = client(server.address, V1.credentials());
    for _ in 0..20 {
        client.clone().version().await.unwrap();
    }
    assert_eq!((server.accepted(), server.requests().len()), (1, 20));
}

#[tokio::test]
async fn the_address_is_looked_up_for_each_new_connection_and_for_no_other() {
    let here = Ipv4Addr::LOCALHOST;
    let there = Ipv4Addr::new(127, 0, 0, 2);
    let answered_here = AtomicUsize::new(0);
    let first = Server::start(stock_tls(&V1), move |_| {
        let body = br#"{"flocker": "here"}"#.to_vec();
        if answered_here.fetch_add(1, Ordering::SeqCst) == 0 {
            Reply::ok(body)
        } else {
            Reply::Last { body }
        }
    });
    let second = Server::start_at((there, first.address.port()).into(), stock_tls(&V1), |_| {
        Reply::ok(r#"{"flocker": "there"}"#)
    });
    let addresses = Arc::new(AddressSequence(Mutex::new([here.into(), there.into()].into())));
    let client = Client::with_resolver(settings(first.address, V1.credentials()), addresses).unwrap();

    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(client.version().await.unwrap());
    }
    assert_eq!(answers, ["here", "here", "there", "there"]);
    assert_eq!((first.accepted(), second.accepted()), (1, 1));
}

#[tokio::test]
async fn addresses_of_both_families_and_names_reach_the_control_service() {
    let v6 = Server::start_at((Ipv6Addr::LOCALHOST, 0).into(), stock_tls(&V1), |_| {
        Reply::ok(r#"{"flocker": "1.15.0"}"#)
    });
    let v4 = Server::of_version(stock_tls(&V1));
    for address in [
        format!("https://{}", v6.address),
        format!("https://{}", v4.address),
        format!("https://localhost:{}", v4.address.port()),
    ] {
        let control_service = address.parse().unwrap();
        let settings = ClientSettings {
            control_service,
            ..settings(v4.address, V1.credentials())
        };
        assert_eq!(
            Client::new(settings).unwrap().version().await.unwrap(),
            "1.15.0",
            "{address}"
        );
    }
}

#[tokio::test]
async fn a_read_is_sent_a_second_time_when_its_connection_was_closed() {
    let server = Server::start(stock_tls(&V1), closing_on(&[1]));
    let client = client(server.address, V1.credentials());
    client.version().await.unwrap();
    assert_eq!(client.version().await.unwrap(), "1.15.0");
    assert_eq!(server.calls(), ["GET /v1/version"; 3]);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_read_is_not_sent_a_third_time() {
    let server = Server::start(stock_tls(&V1), closing_on(&[0, 1]));
    let error = client(server.address, V1.credentials())
        .version()
        .await
        .unwrap_err();
    assert_eq!(kind(&error), TransportKind::Closed);
    assert!(!error.is_unclear(), "a read has no outcome to be unclear about");
    assert_eq!(server.calls(), ["GET /v1/version"; 2]);
}

#[tokio::test]
async fn a_write_is_never_sent_twice_and_its_outcome_is_unclear() {
    let server = Server::start(stock_tls(&V1), closing_on(&[1, 3, 5]));
    let client = client(server.address, V1.credentials());
    for write in ["create", "move", "release"] {
        client.version().await.unwrap();
        let error = match write {
            "create" => client.create_dataset(&new_dataset()).await.unwrap_err(),
            "move" => client.move_dataset(NODE, NODE).await.unwrap_err(),
            _ => client.release_lease(NODE).await.unwrap_err(),
        };
        assert_eq!(kind(&error), TransportKind::Closed);
        assert!(error.is_unclear(), "{error:?}");
    }
    assert_eq!(
        server.calls(),
        [
            "GET /v1/version".to_owned(),
            "POST /v1/configuration/datasets".to_owned(),
            "GET /v1/version".to_owned(),
            format!("POST /v1/configuration/datasets/{NODE}"),
            "GET /v1/version".to_owned(),
            format!("DELETE /v1/configuration/leases/{NODE}"),
        ]
    );
}

#[tokio::test]
async fn an_incomplete_answer_is_a_closed_connection() {
    let server = Server::start(stock_tls(&V1), |_| Reply::Half);
    let client = client(server.address, V1.credentials());
    let error = client.delete_dataset(NODE).await.unwrap_err();
    assert_eq!(kind(&error), TransportKind::Closed);
    assert!(error.is_unclear());
    assert_eq!(
        kind(&client.list_nodes().await.unwrap_err()),
        TransportKind::Closed
    );
}

#[tokio::test]
async fn a_connection_that_is_reset_while_a_write_is_sent_is_a_closed_connection() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let tls = stock_tls(&V1);
    let server = std::thread::spawn(move || {
        let mut stream = tls.accept(listener.accept().unwrap().0).unwrap();
        // Closing a socket that holds unread data makes the kernel send a reset.
        stream.read_exact(&mut [0; 64]).unwrap();
    });
    let metadata = [("large".to_owned(), "x".repeat(32 << 20))].into();
    let new = NewDataset {
        metadata,
        ..new_dataset()
    };
    let error = client(address, V1.credentials())
        .create_dataset(&new)
        .await
        .unwrap_err();
    server.join().unwrap();
    assert_eq!(kind(&error), TransportKind::Closed);
    assert!(error.is_unclear());
}

#[tokio::test]
async fn an_answer_that_is_not_in_time_leaves_a_write_unclear() {
    let server = Server::start(stock_tls(&V1), |_| Reply::Silence);
    let timeout = Duration::from_millis(300);
    let settings = ClientSettings {
        timeout,
        ..settings(server.address, V1.credentials())
    };
    let client = Client::new(settings).unwrap();
    let error = client.create_dataset(&new_dataset()).await.unwrap_err();
    assert_eq!(kind(&error), TransportKind::Timeout(timeout));
    assert!(error.is_unclear());
    assert!(full_message(&error).contains("did not answer POST /v1/configuration/datasets within 300ms"));
    assert!(!client.version().await.unwrap_err().is_unclear());
}

#[tokio::test]
async fn a_connection_that_is_not_established_in_time_carries_no_write() {
    let (_listener, address) = mute();
    let connect_timeout = Duration::from_millis(300);
    let settings = ClientSettings {
        connect_timeout,
        ..settings(address, V1.credentials())
    };
    let error = Client::new(settings)
        .unwrap()
        .create_dataset(&new_dataset())
        .await
        .unwrap_err();
    assert_eq!(kind(&error), TransportKind::ConnectTimeout(connect_timeout));
    assert!(!error.is_unclear());
}

#[tokio::test]
async fn a_port_without_a_listener_is_reported_as_such() {
    let (listener, address) = mute();
    drop(listener);
    let error = client(address, V1.credentials())
        .create_dataset(&new_dataset())
        .await
        .unwrap_err();
    assert_eq!(kind(&error), TransportKind::Refused);
    assert!(!error.is_unclear());
    assert!(
        full_message(&error).contains(&format!("https://{address} refuses connections")),
        "{}",
        full_message(&error)
    );
}

#[tokio::test]
async fn a_host_name_without_an_address_is_reported_as_such() {
    let settings = ClientSettings {
        control_service: "https://flocker.invalid".parse().unwrap(),
        ..settings("127.0.0.1:1".parse().unwrap(), V1.credentials())
    };
    let error = Client::new(settings).unwrap().version().await.unwrap_err();
    assert_eq!(kind(&error), TransportKind::Lookup);
    assert!(
        full_message(&error).contains("flocker.invalid"),
        "{}",
        full_message(&error)
    );
    assert!(
        !full_message(&error).contains("control-service"),
        "the name in the certificate is not looked up"
    );
}

#[tokio::test]
async fn a_service_that_does_not_speak_tls_is_reported_as_such() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            drop(stream.read(&mut [0; 1024]));
            drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
        }
    });
    let error = client(address, V1.credentials()).version().await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: crate::TlsKind::NotTls,
                ..
            }
        ),
        "{error:?}"
    );
}
