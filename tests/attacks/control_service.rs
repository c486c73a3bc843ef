//! A control service whose answers are too large, endless, or wrong. Calls fail in time, memory stays bounded and is
//! returned.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use csi_proto::v1::{ListVolumesRequest, ProbeRequest};
use flocker_embedded::CertificateProfile;
use flocker_embedded::pki::{Authority, Identity, Role};
use openssl::ssl::{SslAcceptor, SslMethod, SslStream};
use tempfile::TempDir;
use tonic::Code;
use uuid::Uuid;

use crate::http2::{Attacker, END_HEADERS, END_STREAM, HEADERS, NO_DATA, announced, frame, headers};
use crate::memory::Watched;
use crate::memory_group::MemoryGroup;
use crate::support::csi::within;
use crate::support::eventually;
use crate::support::process::{Process, program_under};

/// What follows the status line and `Content-Type` of the answer to a request for the configuration.
type Answer = fn(&mut dyn Write) -> io::Result<()>;

const DATASETS: &str = "/v1/configuration/datasets";
const JSON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";
const NODE: Uuid = Uuid::from_u128(0x4000_8000_0000_0000_0001);
/// Longer than the plugin reads of any answer.
const TOO_MUCH: usize = 80 << 20;
/// The deadline of a call, shorter than the plugin's for a request to Flocker.
const DEADLINE: Duration = Duration::from_secs(25);

/// What a plugin takes beside what an attack adds, in MiB.
const OTHER_MIB: u64 = 48;

/// A control service on a port of its own.
struct Hostile {
    address: SocketAddr,
    directory: TempDir,
}

impl Hostile {
    fn start(answer: Answer) -> Self {
        let authority = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        let issue = |role: &Role| authority.issue(role).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let user = issue(&Role::User("plugin".to_owned()));
        for (name, content) in [
            ("cluster.crt", authority.certificate().to_pem().unwrap()),
            ("plugin.crt", user.certificate_pem().unwrap()),
            ("plugin.key", user.key_pem().unwrap()),
        ] {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let acceptor = Arc::new(acceptor(&issue(&Role::ControlService(Vec::new()))));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let acceptor = Arc::clone(&acceptor);
                thread::spawn(move || serve(acceptor.accept(stream.unwrap()).ok()?, answer).ok());
            }
        });
        Self { address, directory }
    }

    /// Starts a plugin with an address space of one GiB that uses it.
    async fn plugin(&self) -> Process {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let flags = [
            "serve".to_owned(),
            "--mode=controller".to_owned(),
            format!("--endpoint={}", path("csi.sock")),
            format!("--control-service=https://{}", self.address),
            format!("--cluster-cert={}", path("cluster.crt")),
            format!("--user-cert={}", path("plugin.crt")),
            format!("--user-key={}", path("plugin.key")),
            format!("--state-dir={}", path("state")),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let program = program_under(&["prlimit", "--as=1073741824", "--"], &flags);
        let process = Process::attempt(program, &self.directory.path().join("plugin.log")).await;
        process.unwrap_or_else(|said| panic!("{said}"))
    }
}

fn acceptor(identity: &Identity) -> SslAcceptor {
    let mut acceptor = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls_server()).unwrap();
    acceptor.set_private_key(identity.key()).unwrap();
    acceptor.set_certificate(identity.certificate()).unwrap();
    acceptor.build()
}

/// Answers the requests of one connection.
fn serve(stream: SslStream<TcpStream>, answer: Answer) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut path = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if path.is_empty() {
                line.split(' ').nth(1).unwrap_or_default().clone_into(&mut path);
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        io::copy(&mut stream.by_ref().take(length), &mut io::sink())?;
        let body = match &*path {
            DATASETS => None,
            "/v1/state/nodes" => Some(format!(r#"[{{"uuid": "{NODE}", "host": "127.0.0.1"}}]"#)),
            _ => Some("[]".to_owned()),
        };
        let writer = stream.get_mut();
        writer.write_all(JSON)?;
        match body {
            Some(body) => write!(writer, "Content-Length: {}\r\n\r\n{body}", body.len())?,
            None => answer(writer)?,
        }
    }
}

/// Writes a body whose length is not announced, and of which `piece` returns the next part until it is long enough.
fn chunked(
    writer: &mut dyn Write,
    length: usize,
    begin: &str,
    mut piece: impl FnMut(usize) -> String,
    end: &str,
) -> io::Result<()> {
    writer.write_all(b"Transfer-Encoding: chunked\r\n\r\n")?;
    let mut write = |text: &str| write!(writer, "{:x}\r\n{text}\r\n", text.len());
    write(begin)?;
    let (mut sent, mut number) = (0, 0);
    while sent < length {
        let mut text = String::new();
        while text.len() < 16 << 10 {
            text += &piece(number);
            number += 1;
        }
        sent += text.len();
        write(&text)?;
    }
    if !end.is_empty() {
        write(end)?;
    }
    writer.write_all(b"0\r\n\r\n")
}

fn dataset(number: usize, metadata: &str) -> String {
    let id = Uuid::from_u128(0x4000_8000_0000_0000_0000 + number as u128);
    format!(
        r#"{}{{"dataset_id": "{id}", "primary": "{NODE}", "deleted": false, "maximum_size": 67108864, "metadata": {{{metadata}}}}}"#,
        if number == 0 { "" } else { ", " }
    )
}

/// 38 MB of datasets as the plugin makes them.
fn many(writer: &mut dyn Write) -> io::Result<()> {
    let piece = |number| {
        let metadata = format!(
            r#""csi.driver": "flocker.csi.clusterhq.com", "csi.generation": "0", "name": "pvc-{number:032x}", "team": "{number}""#
        );
        dataset(number, &metadata)
    };
    chunked(writer, 38_000_000, "[", piece, "]")
}

/// 38 MB of the shortest metadata.
fn dense(writer: &mut dyn Write) -> io::Result<()> {
    let piece = |number| {
        let metadata: Vec<_> = (0..2000).map(|key| format!(r#""{key:x}":"""#)).collect();
        dataset(number, &metadata.join(","))
    };
    chunked(writer, 38_000_000, "[", piece, "]")
}

fn endless_list(writer: &mut dyn Write) -> io::Result<()> {
    chunked(writer, TOO_MUCH, "[", |number| dataset(number, ""), "]")
}

fn endless_text(writer: &mut dyn Write) -> io::Result<()> {
    chunked(
        writer,
        TOO_MUCH,
        "[{\"dataset_id\": \"",
        |_| "a".repeat(1000),
        "\"}]",
    )
}

fn endless_space(writer: &mut dyn Write) -> io::Result<()> {
    chunked(writer, TOO_MUCH, "", |_| " \n\t".repeat(300), "[]")
}

fn nested(writer: &mut dyn Write) -> io::Result<()> {
    chunked(writer, TOO_MUCH, "[", |_| "[{\"a\":".repeat(100), "")
}

fn endless_header(writer: &mut dyn Write) -> io::Result<()> {
    for _ in 0..TOO_MUCH / 1000 {
        write!(writer, "x-a: {}\r\n", "a".repeat(1000))?;
    }
    Ok(())
}

fn compressed(writer: &mut dyn Write) -> io::Result<()> {
    writer.write_all(b"Content-Encoding: gzip\r\n")?;
    chunked(writer, 1 << 20, "\x1f", |_| "\x08\0\0".repeat(300), "")
}

fn lying_length(writer: &mut dyn Write) -> io::Result<()> {
    write!(writer, "Content-Length: 99999999999\r\n\r\n[")
}

/// Lists the volumes; returns how many, or the code.
async fn list(plugin: &Process) -> Result<usize, Code> {
    let request = within(DEADLINE, ListVolumesRequest::default());
    let listed = plugin.csi.controller().list_volumes(request).await;
    listed
        .map(|listed| listed.into_inner().entries.len())
        .map_err(|status| {
            println!("{status}");
            status.code()
        })
}

async fn assert_bounded(answer: Answer, most: u64) -> Result<usize, Code> {
    let hostile = Hostile::start(answer);
    let group = MemoryGroup::of_mib(most + OTHER_MIB);
    let plugin = hostile.plugin().await;
    group.add(plugin.id());
    plugin.csi.identity().probe(ProbeRequest {}).await.unwrap();
    let memory = Watched::begin(plugin.id());
    let listed = list(&plugin).await;
    group.assert_none_killed();
    plugin.csi.identity().probe(ProbeRequest {}).await.unwrap();
    memory.assert_peak(most);
    memory.returns().await;
    plugin.terminate().await;
    listed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_38_mb_is_read_and_its_memory_returned() {
    let listed = assert_bounded(many, 200).await;
    assert!(listed.is_ok_and(|listed| listed > 10_000), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_clients_leave_unread_share_a_budget() {
    let hostile = Hostile::start(many);
    let plugin = hostile.plugin().await;
    let memory = Watched::begin(plugin.id());
    let socket = hostile.directory.path().join("csi.sock");
    let mut attacker = Attacker::connect_with(&socket, &NO_DATA).await;
    let block = headers("/csi.v1.Controller/ListVolumes");
    for stream in (1..40).step_by(2) {
        attacker.send(&frame(HEADERS, END_HEADERS, stream, &block)).await;
        assert!(attacker.send_data(stream, END_STREAM, &announced(0, b"")).await);
    }
    let refused = async || (list(&plugin).await == Err(Code::Unavailable)).then_some(());
    eventually("a list is refused", refused).await;
    memory.assert_peak(400);
    attacker.leave().await;
    eventually("lists are answered again", async || list(&plugin).await.ok()).await;
    memory.returns().await;
    plugin.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_the_shortest_metadata_is_read_and_its_memory_returned() {
    let listed = assert_bounded(dense, 700).await;
    assert!(listed.is_ok_and(|listed| listed > 1000), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_an_end_are_cut() {
    for (answer, most) in [
        (endless_list as Answer, 400),
        (endless_text, 200),
        (endless_space, 50),
        (nested, 200),
        (endless_header, 50),
        (lying_length, 50),
    ] {
        let listed = assert_bounded(answer, most).await;
        assert!(
            matches!(listed, Err(Code::Unavailable | Code::DeadlineExceeded)),
            "{listed:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_answers_are_refused() {
    assert_eq!(assert_bounded(compressed, 50).await, Err(Code::Unavailable));
}
