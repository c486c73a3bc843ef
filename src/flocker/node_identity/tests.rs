use std::net::UdpSocket;
use std::path::Path;
use std::sync::Mutex;

use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::{X509, X509NameBuilder};
use tempfile::TempDir;

use super::*;

const ERA: Uuid = Uuid::from_u128(0xe4a);
const OTHER_ERA: Uuid = Uuid::from_u128(0xe4b);
const ONE: Uuid = Uuid::from_u128(1);
const TWO: Uuid = Uuid::from_u128(2);

/// A Flocker whose answers the test sets.
#[derive(Clone, Default)]
struct FakeFlocker {
    answers: Arc<Mutex<Answers>>,
}

#[derive(Default)]
struct Answers {
    /// Whether it can be reached.
    up: bool,
    node: Option<Uuid>,
    /// How often it answers "no such node" before that.
    not_yet: usize,
    nodes: Vec<Node>,
    asked: usize,
}

impl FakeFlocker {
    fn named(node: Uuid) -> Self {
        let flocker = Self::without_an_answer();
        flocker.answers.lock().unwrap().node = Some(node);
        flocker
    }

    fn without_an_answer() -> Self {
        let flocker = Self::default();
        flocker.answers.lock().unwrap().up = true;
        flocker
    }

    fn asked(&self) -> usize {
        self.answers.lock().unwrap().asked
    }
}

impl NodeDirectory for FakeFlocker {
    fn node_by_era(&self, era: Uuid) -> BoxFuture<'_, Result<Option<Uuid>>> {
        assert_eq!(era, ERA);
        let mut answers = self.answers.lock().unwrap();
        answers.asked += 1;
        let answer = match answers.node {
            _ if !answers.up => Err(Error::new(Situation::FlockerUnavailable, "connection refused")),
            _ if answers.asked <= answers.not_yet => Ok(None),
            node => Ok(node),
        };
        async { answer }.boxed()
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Node>>> {
        let nodes = self.answers.lock().unwrap().nodes.clone();
        async { Ok(nodes) }.boxed()
    }
}

struct Machine {
    directory: TempDir,
}

impl Machine {
    fn new() -> Self {
        let machine = Self {
            directory: TempDir::new().unwrap(),
        };
        machine.write("boot_id", &format!("{ERA}\n"));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources {
            node_id: None,
            node_id_file: self.path("node-id"),
            node_certificate: self.path("node.crt"),
            boot_id_file: self.path("boot_id"),
            state_dir: self.path("state"),
        }
    }

    fn identity(&self, flocker: &FakeFlocker) -> NodeIdentity {
        NodeIdentity::new(self.sources(), flocker.clone())
    }

    fn save(&self, node: Uuid, era: Uuid) {
        SavedNode::new(node, era).write(&self.path("state")).unwrap();
    }

    fn saved(&self) -> Option<SavedNode> {
        SavedNode::read(&self.path("state"))
    }
}

fn certificate(common_name: &str) -> String {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_nid(openssl::nid::Nid::COMMONNAME, common_name)
        .unwrap();
    let name = name.build();
    let mut certificate = X509::builder().unwrap();
    certificate.set_subject_name(&name).unwrap();
    certificate.set_issuer_name(&name).unwrap();
    certificate.set_pubkey(&key).unwrap();
    certificate
        .set_not_before(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    certificate
        .set_not_after(&Asn1Time::days_from_now(1).unwrap())
        .unwrap();
    certificate.sign(&key, MessageDigest::sha256()).unwrap();
    String::from_utf8(certificate.build().to_pem().unwrap()).unwrap()
}

#[tokio::test]
async fn a_node_that_is_set_is_used_whatever_flocker_answers() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::named(TWO));
    let set = NodeIdentity::new(
        Sources {
            node_id: Some(ONE),
            ..machine.sources()
        },
        flocker.clone(),
    );
    assert_eq!(set.resolve().await.unwrap(), ONE);
    machine.write("node-id", &format!(" {ONE}\n"));
    assert_eq!(machine.identity(&flocker).resolve().await.unwrap(), ONE);
    assert_eq!(flocker.asked(), 0);
}

#[tokio::test]
async fn a_file_without_a_uuid_is_an_error_and_not_a_missing_file() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::named(TWO));
    machine.write("node-id", "node-1\n");
    let error = machine.identity(&flocker).resolve().await.unwrap_err();
    assert!(
        error
            .chain()
            .contains("should hold the UUID of this node and holds another text"),
        "{}",
        error.chain()
    );
    assert!(check(&machine.sources()).is_err());
}

#[tokio::test]
async fn flocker_is_asked_once_for_all_callers_and_its_answer_is_saved() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::named(ONE));
    let identity = machine.identity(&flocker);
    let answers = futures::future::join_all((0..10).map(|_| identity.resolve())).await;
    assert!(
        answers
            .into_iter()
            .all(|answer| answer.is_ok_and(|node| node == ONE))
    );
    assert_eq!(flocker.asked(), 1);
    assert_eq!(machine.saved(), Some(SavedNode::new(ONE, ERA)));
}

#[tokio::test(start_paused = true)]
async fn resolving_waits_for_an_agent_that_has_not_reported_yet() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::named(ONE));
    flocker.answers.lock().unwrap().not_yet = 5;
    machine.save(TWO, OTHER_ERA);
    assert_eq!(machine.identity(&flocker).resolve().await.unwrap(), ONE);
}

#[tokio::test]
async fn a_start_without_flocker_believes_flockers_last_answer() {
    for era in [ERA, OTHER_ERA] {
        let (machine, flocker) = (Machine::new(), FakeFlocker::default());
        machine.save(TWO, era);
        machine.write("node.crt", "not read");
        assert_eq!(machine.identity(&flocker).resolve().await.unwrap(), TWO);
        assert_eq!(machine.saved(), Some(SavedNode::new(TWO, era)));
    }
}

#[tokio::test(start_paused = true)]
async fn flockers_answer_replaces_a_believed_node() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::default());
    machine.save(TWO, OTHER_ERA);
    let identity = machine.identity(&flocker);
    assert_eq!(identity.resolve().await.unwrap(), TWO);
    *flocker.answers.lock().unwrap() = Answers {
        up: true,
        node: Some(ONE),
        ..Answers::default()
    };
    tokio::time::advance(CONFIRM_EVERY).await;
    assert_eq!(identity.resolve().await.unwrap(), ONE);
    assert_eq!(machine.saved(), Some(SavedNode::new(ONE, ERA)));
}

#[tokio::test(start_paused = true)]
async fn the_agents_certificate_is_believed_without_a_better_source() {
    for flocker in [FakeFlocker::default(), FakeFlocker::without_an_answer()] {
        let machine = Machine::new();
        machine.write("node.crt", &certificate(&format!("node-{ONE}")));
        assert_eq!(machine.identity(&flocker).resolve().await.unwrap(), ONE);
        assert_eq!(machine.saved(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_names_no_node_is_ignored() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::without_an_answer());
    machine.write("node.crt", &certificate("control-service"));
    let error = machine.identity(&flocker).resolve().await.unwrap_err();
    assert_eq!(error.situation(), Situation::NodeNotReporting);
    assert!(error.chain().contains(&ERA.to_string()), "{}", error.chain());
}

#[tokio::test]
async fn without_flocker_and_local_sources_the_error_names_the_sources() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::default());
    let error = machine.identity(&flocker).resolve().await.unwrap_err();
    assert_eq!(error.situation(), Situation::FlockerUnavailable);
    for part in ["connection refused", "node-id", "node.crt", "node_id is not set"] {
        assert!(error.chain().contains(part), "{}", error.chain());
    }
}

#[test]
fn only_an_address_of_this_machine_alone_identifies_a_node() {
    let node = |uuid, host: &str| Node {
        uuid,
        host: host.to_owned(),
    };
    let foreign = [
        node(ONE, "192.0.2.1"),
        node(TWO, "127.0.0.1"),
        node(TWO, "0.0.0.0"),
        node(ONE, "a.name"),
    ];
    assert_eq!(local_sources::with_local_address(&foreign), None);
    if let Some(address) = address_of_this_machine() {
        let nodes = [node(ONE, "192.0.2.1"), node(TWO, &address)];
        assert_eq!(local_sources::with_local_address(&nodes), Some(TWO));
        let shared = [node(ONE, &address), node(TWO, &address)];
        assert_eq!(local_sources::with_local_address(&shared), None);
    }
}

/// Returns the address from which this machine reaches other machines, if it has one. It sends nothing.
fn address_of_this_machine() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

#[test]
fn a_saved_node_that_cannot_be_read_counts_as_missing() {
    let machine = Machine::new();
    assert_eq!(SavedNode::read(Path::new("/nowhere")), None);
    machine.save(ONE, ERA);
    machine.write("state/node.json", "{");
    assert_eq!(machine.saved(), None);
}

#[test]
fn a_stop_of_the_plugin_while_files_are_read_is_no_final_error() {
    let (machine, flocker) = (Machine::new(), FakeFlocker::named(ONE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    let resolved = machine.identity(&flocker).resolve().now_or_never().unwrap();
    let error = resolved.unwrap_err();
    assert!(!error.situation().is_final(), "{}", error.chain());
    assert!(
        error.chain().contains("the plugin is stopping"),
        "{}",
        error.chain()
    );
}
