//! A cluster whose lists have entries that cannot be read: each costs itself and nothing else.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use csi_proto::v1::list_volumes_response::Entry;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::{
    ControllerGetVolumeRequest, ControllerUnpublishVolumeRequest, GetCapacityRequest, ListVolumesRequest,
    ValidateVolumeCapabilitiesRequest,
};
use flocker_csi::volume::{Namespace, VolumeName};
use flocker_embedded::faults::{Effect, RequestFault};
use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use tokio::task::block_in_place;
use tonic::Code;
use uuid::Uuid;

use crate::node::assert_refused;
use crate::support::csi::{Csi, capability, to_attach, to_create, to_detach, within};
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const DRIVER: &str = "flocker.csi.clusterhq.com";
const DATASETS: &str = "/v1/configuration/datasets";
const LEASES: &str = "/v1/configuration/leases";
const STATE: &str = "/v1/state/datasets";
const NODES: &str = "/v1/state/nodes";
const SIZE: i64 = 64 << 20;

/// Returns the id that a volume of this name gets.
fn id_of(name: &str) -> Uuid {
    Namespace::new(DRIVER).dataset_id(&VolumeName::parse(name).unwrap(), 0)
}

/// Creates a dataset with fields that no client library sends.
fn create_odd(flocker: &Flocker, dataset: Uuid, fields: &str) {
    let primary = flocker.node(1);
    let body = format!(r#"{{"dataset_id": "{dataset}", "primary": "{primary}", {fields}}}"#);
    let embedded = flocker.embedded();
    let answer = block_in_place(|| post(embedded.address(), embedded.certificates(), &body));
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

fn post(address: std::net::SocketAddr, certificates: &Path, body: &str) -> String {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_ca_file(certificates.join("cluster.crt")).unwrap();
    let [certificate, key] = ["plugin.crt", "plugin.key"].map(|name| certificates.join(name));
    connector
        .set_certificate_file(certificate, SslFiletype::PEM)
        .unwrap();
    connector.set_private_key_file(key, SslFiletype::PEM).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    let mut stream = connector.build().connect("control-service", stream).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {DATASETS} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok();
    answer
}

/// Adds elements to a list of Flocker's.
fn add(flocker: &Flocker, list: &str, elements: &[String]) {
    let effect = Effect::AddToList(elements.to_vec());
    flocker
        .embedded()
        .faults()
        .add(RequestFault::new(list, effect).on("GET", list));
}

async fn listed(csi: &Csi) -> Vec<Entry> {
    let list = csi.controller().list_volumes(ListVolumesRequest::default()).await;
    list.unwrap().into_inner().entries
}

fn entry_of(entries: &[Entry], dataset: Uuid) -> Option<(i64, String)> {
    let entry = entries
        .iter()
        .find(|entry| entry.volume.as_ref().unwrap().volume_id == dataset.to_string())?;
    let condition = entry.status.as_ref().unwrap().volume_condition.as_ref().unwrap();
    Some((
        entry.volume.as_ref().unwrap().capacity_bytes,
        condition.message.clone(),
    ))
}

/// Uses a volume on one node after the other, and deletes it.
async fn lives(volume: Uuid, on: &[(&Machine, &Csi)]) {
    for (machine, csi) in on {
        let context = csi.attach(volume, machine.node()).await;
        let usage = machine.usage(&volume.to_string(), volume, &context);
        csi.stage(&usage).await.unwrap();
        csi.publish(&usage).await.unwrap();
        let file = usage.target.join("file");
        if file.exists() {
            assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        }
        fs::write(&file, "precious").unwrap();
        assert!(
            !csi.stats(&usage)
                .await
                .unwrap()
                .volume_condition
                .unwrap()
                .abnormal
        );
        csi.unpublish(&usage).await.unwrap();
        csi.unstage(&usage).await.unwrap();
        csi.detach(volume, machine.node()).await;
    }
    let (_, csi) = on.first().unwrap();
    let get = ControllerGetVolumeRequest {
        volume_id: volume.to_string(),
    };
    csi.controller().controller_get_volume(get).await.unwrap();
    let validate = ValidateVolumeCapabilitiesRequest {
        volume_id: volume.to_string(),
        volume_capabilities: vec![capability(Mode::SingleNodeWriter)],
        ..Default::default()
    };
    let validated = csi
        .controller()
        .validate_volume_capabilities(validate)
        .await
        .unwrap();
    assert!(validated.into_inner().confirmed.is_some());
    csi.delete(volume).await.unwrap();
    assert_eq!(entry_of(&listed(csi).await, volume), None);
}

/// The datasets that have an oddity.
struct Odd {
    /// Has a size of 2^64.
    sized: Uuid,
    /// Has metadata that is not Unicode.
    texted: Uuid,
    /// Has both, and is deleted.
    deleted: Uuid,
    /// Has no readable primary.
    entry: Uuid,
    /// Is listed twice, live and deleted.
    twice: Uuid,
    /// Is leased to a node that cannot be read.
    leased: Uuid,
    /// Is mounted on a node that cannot be read.
    elsewhere: Uuid,
}

/// Makes every oddity. `leased` and `elsewhere` are two volumes.
async fn make_odd(flocker: &Flocker, leased: Uuid, elsewhere: Uuid) -> Odd {
    let [sized, texted, deleted, entry, twice] =
        ["odd-size", "odd-text", "odd-deleted", "odd-entry", "odd-twice"].map(id_of);
    create_odd(flocker, sized, r#""maximum_size": 18446744073709551616"#);
    let metadata = r#"{"name": "odd-text", "csi.driver": "flocker.csi.clusterhq.com", "\udfff": "\ud800"}"#;
    create_odd(
        flocker,
        texted,
        &format!(r#""maximum_size": {SIZE}, "metadata": {metadata}"#),
    );
    create_odd(
        flocker,
        deleted,
        r#""maximum_size": 18446744073709551616, "metadata": {"k": "\ud800"}"#,
    );
    flocker.client().await.delete_dataset(deleted).await.unwrap();
    flocker.reports(1, texted).await;

    let node = flocker.node(1);
    let dataset = |id: Uuid, fields: &str| format!(r#"{{"dataset_id": "{id}", {fields}}}"#);
    add(
        flocker,
        DATASETS,
        &[
            dataset(
                entry,
                r#""primary": 7, "deleted": false, "metadata": {"name": "odd-entry"}"#,
            ),
            dataset(
                twice,
                &format!(r#""primary": "{node}", "maximum_size": 1073741824.0"#),
            ),
            dataset(twice, &format!(r#""primary": "{node}", "deleted": true"#)),
            "7".to_owned(),
            r#"{"\ud800": NaN}"#.to_owned(),
        ],
    );
    add(
        flocker,
        LEASES,
        &[
            dataset(leased, r#""node_uuid": "?", "expires": Infinity"#),
            "null".to_owned(),
        ],
    );
    add(
        flocker,
        STATE,
        &[
            dataset(
                elsewhere,
                r#""primary": 7, "path": "/\ud800", "maximum_size": -1"#,
            ),
            "[[]]".to_owned(),
        ],
    );
    add(
        flocker,
        NODES,
        &[r#"{"uuid": "?", "host": "10.0.0.9"}"#.to_owned()],
    );

    Odd {
        sized,
        texted,
        deleted,
        entry,
        twice,
        leased,
        elsewhere,
    }
}

async fn assert_listed(csi: &Csi, odd: &Odd) {
    let Odd {
        sized,
        texted,
        deleted,
        entry,
        twice,
        leased,
        elsewhere,
    } = *odd;
    let entries = listed(csi).await;
    let (size, condition) = entry_of(&entries, sized).unwrap();
    assert!(
        size == 0 && condition.contains("no node reports it"),
        "{size}: {condition}"
    );
    let (size, condition) = entry_of(&entries, texted).unwrap();
    assert!(
        size == SIZE && condition.contains("has it mounted"),
        "{size}: {condition}"
    );
    for (dataset, part) in [
        (entry, "entry in the configuration cannot be read"),
        (twice, "entry in the configuration cannot be read"),
        (leased, "which node holds the lease cannot be read"),
        (elsewhere, "a node whose id cannot be read"),
    ] {
        let (_, condition) = entry_of(&entries, dataset).unwrap();
        assert!(condition.contains(part), "{condition}");
    }
    assert_eq!(entry_of(&entries, deleted), None);
    assert_eq!(entries.len(), 6, "{entries:?}");
}

async fn assert_refusals(csi: &Csi, node: Uuid, odd: &Odd) {
    let Odd {
        entry,
        twice,
        leased,
        elsewhere,
        ..
    } = *odd;
    for (name, code, part) in [
        (
            "odd-size",
            Code::AlreadyExists,
            "its size in Flocker's configuration cannot be read",
        ),
        (
            "odd-text",
            Code::AlreadyExists,
            "its metadata in Flocker's configuration cannot be read",
        ),
        ("odd-entry", Code::Unavailable, "primary is 7"),
        ("odd-twice", Code::Unavailable, "it is listed twice"),
    ] {
        assert_refused(
            csi.try_create(to_create(name)).await,
            code,
            &[part, &id_of(name).to_string()],
        );
    }
    for dataset in [entry, twice, leased] {
        assert_refused(csi.delete(dataset).await, Code::Unavailable, &["cannot be read"]);
        let attached = csi.try_attach(to_attach(dataset, node)).await;
        assert_refused(
            attached,
            Code::Unavailable,
            &["cannot be read", &dataset.to_string()],
        );
    }
    let detached = csi.try_detach(to_detach(leased, node)).await;
    assert_refused(detached, Code::Unavailable, &["another node may hold it"]);
    let soon = Duration::from_secs(3);
    let attached = csi.try_attach(within(soon, to_attach(elsewhere, node))).await;
    assert_refused(
        attached,
        Code::DeadlineExceeded,
        &["a node whose id cannot be read"],
    );
}

/// Asserts that each oddity has one line in a log; in that of a process that has not read all of them, at most one.
fn assert_logged_once(log: &str, all: bool, odd: &Odd) {
    let Odd {
        sized,
        texted,
        deleted,
        entry,
        twice,
        leased,
        elsewhere,
    } = *odd;
    let lines = |words: &str| {
        let lines = log.lines().filter(|line| line.contains("logged once"));
        lines.filter(|line| line.contains(words)).count()
    };
    for (id, path) in [
        (Some(sized), DATASETS),
        (Some(texted), DATASETS),
        (Some(entry), DATASETS),
        (Some(twice), DATASETS),
        (Some(leased), LEASES),
        (Some(elsewhere), STATE),
        (None, DATASETS),
        (None, LEASES),
        (None, STATE),
        (None, NODES),
    ] {
        let words = id.map_or("without a readable id in GET ".to_owned() + path, |id| {
            format!("{id} that")
        });
        let found = lines(&words);
        assert!(
            found == 1 || (!all && found == 0),
            "{found} lines with {words}:\n{log}"
        );
    }
    assert_eq!(lines(&deleted.to_string()), 0, "{log}");
}

#[test]
fn every_call_works_for_all_other_volumes_of_a_cluster_with_every_oddity_in_it() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(2).await;
        let (first, second) = (Machine::new(&flocker, 1), Machine::new(&flocker, 2));
        let (on_first, on_second) = (first.process(&[]).await, second.process(&[]).await);
        let csi = &on_first.csi;
        let [leased, elsewhere] = [csi.create("leased").await, csi.create("elsewhere").await];

        let odd = make_odd(&flocker, leased, elsewhere).await;

        let nodes = [(&first, csi), (&second, &on_second.csi)];
        lives(csi.create("good").await, &nodes).await;
        let capacity = csi.controller().get_capacity(GetCapacityRequest::default()).await;
        capacity.unwrap();

        assert_listed(csi, &odd).await;
        assert_refusals(csi, first.node(), &odd).await;
        let again = csi.create("odd-deleted").await;
        assert_ne!(again, odd.deleted);
        lives(again, &nodes).await;

        csi.delete(odd.sized).await.unwrap();
        lives(odd.texted, &nodes).await;

        // Without a node id, the lease of any node is released, also of one that is not known.
        let asked = || {
            let counters = flocker.embedded().counters();
            counters.asked("DELETE", "/v1/configuration/leases/{dataset_id}")
        };
        let before = asked();
        let everywhere = to_detach(leased, Uuid::nil());
        let everywhere = ControllerUnpublishVolumeRequest {
            node_id: String::new(),
            ..everywhere
        };
        csi.try_detach(everywhere).await.unwrap();
        assert_eq!(asked(), before + 1);

        assert_logged_once(&on_first.log(), true, &odd);
        assert_logged_once(&on_second.log(), false, &odd);
    });
}
