//! Entries that do not fit, each of which costs only itself.

use std::path::Path;

use uuid::{Uuid, uuid};

use super::{
    NODE,
    answers::{NODE_2, answering},
    server::Reply,
};
use crate::{Client, Datasets, UnreadableParts};

const ID: Uuid = uuid!("e5861c65-3166-46d9-a9d4-38f4fb17ce62");
const OTHER: Uuid = uuid!("0c3165d1-b4ad-4a55-a6b3-9cfb5adff113");

/// Returns a client whose every read is answered with the list of these elements.
fn listing(elements: &[&str]) -> (super::server::Server, Client) {
    let body = format!("[{}]", elements.join(", "));
    answering(move || Reply::ok(body.clone()))
}

/// Lists an odd dataset between two good ones.
async fn datasets(odd: &str) -> Datasets {
    let good =
        |id| format!(r#"{{"dataset_id": "{id}", "primary": "{NODE}", "metadata": {{"name": "good"}}}}"#);
    let (one, two) = (good(Uuid::from_u128(1)), good(Uuid::from_u128(2)));
    let (_server, client) = listing(&[&one, odd, &two]);
    let listed = client.list_datasets().await.unwrap();
    let good = listed
        .datasets
        .iter()
        .filter(|dataset| dataset.metadata.get("name").is_some_and(|name| name == "good"));
    assert_eq!(good.count(), 2, "{odd}");
    listed
}

#[tokio::test]
async fn a_dataset_keeps_what_can_be_decoded_of_it() {
    let metadata = |text: &str| format!(r#", "metadata": {text}"#);
    let size = |text: &str| format!(r#", "maximum_size": {text}"#);
    let parts = |size, metadata| UnreadableParts { size, metadata };
    let nested = format!(
        r#"{{"k": {}1{}, "name": "n"}}"#,
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    for (fields, unreadable, maximum_size, name) in [
        (
            metadata(r#"{"k": "\ud800", "name": "n"}"#),
            parts(false, true),
            None,
            Some("n"),
        ),
        (
            metadata(r#"{"\udfff": "v", "name": "n"}"#),
            parts(false, true),
            None,
            Some("n"),
        ),
        (
            metadata(r#"{"name": "\ud834\udd1e\u0000"}"#),
            parts(false, false),
            None,
            Some("\u{1d11e}\0"),
        ),
        (
            metadata(r#"{"name": "a", "name": "n"}"#),
            parts(false, false),
            None,
            Some("n"),
        ),
        (
            metadata(r#"{"k": 7, "name": "n"}"#),
            parts(false, true),
            None,
            Some("n"),
        ),
        (metadata(&nested), parts(false, true), None, Some("n")),
        (metadata("7"), parts(false, true), None, None),
        (metadata("null"), parts(false, false), None, None),
        (size("18446744073709551616"), parts(true, false), None, None),
        (
            size("18446744073709551615"),
            parts(false, false),
            Some(u64::MAX),
            None,
        ),
        (size("1073741824.0"), parts(false, false), Some(1 << 30), None),
        (size("1e400"), parts(true, false), None, None),
        (size("NaN"), parts(true, false), None, None),
        (size("-1"), parts(true, false), None, None),
        (size("\"1\""), parts(true, false), None, None),
        (size("null"), parts(false, false), None, None),
        (size("1, \"maximum_size\": 2"), parts(false, false), Some(2), None),
        (String::new(), parts(false, false), None, None),
    ] {
        let odd = format!(r#"{{"dataset_id": "{ID}", "primary": "{NODE_2}"{fields}}}"#);
        let listed = datasets(&odd).await;
        let found = listed
            .datasets
            .iter()
            .find(|dataset| dataset.dataset_id == ID)
            .unwrap();
        assert_eq!((found.primary, found.deleted), (NODE_2, false), "{odd}");
        assert_eq!(
            (found.unreadable, found.maximum_size),
            (unreadable, maximum_size),
            "{odd}"
        );
        assert_eq!(found.metadata.get("name").map(String::as_str), name, "{odd}");
        let faults: Vec<_> = listed.unreadable.faults.iter().map(|fault| fault.id).collect();
        let expected = (unreadable != UnreadableParts::default()).then_some(Some(ID));
        assert_eq!(faults, Vec::from_iter(expected), "{odd}");
        assert!(listed.unreadable.entries.is_empty() && listed.unreadable.without_id == 0);
    }
}

#[tokio::test]
async fn a_dataset_whose_meaning_cannot_be_decoded_is_known_by_its_id() {
    for (fields, node) in [
        (r#""primary": 7"#.to_owned(), None),
        (r#""deleted": false"#.to_owned(), None),
        (format!(r#""primary": "{NODE}", "deleted": "no""#), Some(NODE)),
    ] {
        let listed = datasets(&format!(r#"{{"dataset_id": "{ID}", {fields}}}"#)).await;
        assert_eq!(listed.datasets.len(), 2);
        let [entry] = listed.unreadable.entries[..] else {
            panic!("{listed:?}")
        };
        assert_eq!((entry.dataset_id, entry.node), (ID, node));
        assert_eq!(listed.unreadable.faults[0].id, Some(ID));
    }
}

#[tokio::test]
async fn an_element_without_an_id_is_counted() {
    for odd in [
        "7",
        "null",
        "[]",
        "\"\\ud800\"",
        "{}",
        r#"{"dataset_id": "\ud800"}"#,
        r#"{"\ud800": 1}"#,
    ] {
        let listed = datasets(odd).await;
        assert_eq!(
            (listed.datasets.len(), listed.unreadable.without_id),
            (2, 1),
            "{odd}"
        );
        assert_eq!(listed.unreadable.faults[0].id, None);
    }
}

#[tokio::test]
async fn nothing_but_the_id_of_a_deleted_dataset_is_needed() {
    let odd = format!(
        r#"{{"dataset_id": "{ID}", "deleted": true, "maximum_size": 18446744073709551616, "metadata": {{"\ud800": 7}}}}"#
    );
    let listed = datasets(&odd).await;
    let found = listed
        .datasets
        .iter()
        .find(|dataset| dataset.dataset_id == ID)
        .unwrap();
    assert!(found.deleted && found.metadata.is_empty() && found.primary.is_nil());
    assert_eq!(listed.unreadable, crate::Unreadable::default());
}

#[tokio::test]
async fn a_lease_without_a_readable_node_is_held_by_an_unknown_one() {
    let odd = format!(r#"{{"dataset_id": "{ID}", "node_uuid": "?", "expires": null}}"#);
    let expiring = format!(r#"{{"dataset_id": "{OTHER}", "node_uuid": "{NODE}", "expires": Infinity}}"#);
    let (_server, client) = listing(&[&odd, &expiring]);
    let leases = client.list_leases().await.unwrap();
    assert_eq!(leases.unreadable.entries[0].dataset_id, ID);
    assert_eq!(
        (leases[0].dataset_id, leases[0].node_uuid, leases[0].expires),
        (OTHER, NODE, Some(0.0))
    );
    assert_eq!(leases.unreadable.faults.len(), 2);
}

#[tokio::test]
async fn a_state_keeps_that_an_unknown_node_has_the_dataset() {
    let unknown = format!(r#"{{"dataset_id": "{ID}", "primary": 7, "path": "/flocker/x"}}"#);
    let sized = format!(
        r#"{{"dataset_id": "{OTHER}", "primary": "{NODE}", "maximum_size": 1e99, "path": "/\ud800"}}"#
    );
    let (_server, client) = listing(&[&unknown, &sized]);
    let states = client.list_dataset_states().await.unwrap();
    assert!(states[0].unreadable_primary && states[0].primary.is_none());
    assert_eq!(
        (states[1].unreadable_primary, states[1].primary),
        (false, Some(NODE))
    );
    assert_eq!(states[1].maximum_size, None);
    assert!(
        states[1]
            .path
            .as_deref()
            .is_some_and(|path| path.starts_with(Path::new("/")))
    );
    assert_eq!(states.unreadable.faults.len(), 2);
}

#[tokio::test]
async fn a_node_needs_no_readable_address() {
    let odd = format!(r#"{{"uuid": "{NODE}", "host": 7}}"#);
    let (_server, client) = listing(&[&odd, r#"{"uuid": "?", "host": "10.0.0.1"}"#]);
    let nodes = client.list_nodes().await.unwrap();
    assert_eq!((nodes.len(), nodes[0].uuid, &*nodes[0].host), (1, NODE, ""));
    assert_eq!(nodes.unreadable.without_id, 1);
}

#[tokio::test]
async fn faults_are_described_up_to_a_limit_and_counted_beyond() {
    let odd = vec!["{}"; 5_000];
    let (_server, client) = listing(&odd);
    let listed = client.list_datasets().await.unwrap();
    assert_eq!(
        (listed.unreadable.without_id, listed.unreadable.faults.len()),
        (5_000, 100)
    );
}

#[tokio::test]
async fn answers_about_an_odd_dataset_are_understood() {
    let answer = |deleted| {
        format!(
            r#"{{"dataset_id": "{ID}", "primary": "{NODE}", "deleted": {deleted}, "maximum_size": 18446744073709551616, "metadata": {{"\ud800": "\udfff"}}}}"#
        )
    };
    let (_server, client) = answering(move || Reply::ok(answer(false)));
    assert_eq!(client.move_dataset(ID, NODE).await.unwrap().primary, NODE);
    let (_server, client) = answering(move || Reply::ok(answer(true)));
    assert!(client.delete_dataset(ID).await.unwrap().deleted);
}
