//! Which clients are accepted, which stage the others reach, and which alert they receive.

use std::io::{self, Write};
use std::net::TcpStream;

use flocker_embedded::pki::{Authority, Identity, Role};
use flocker_embedded::{CertificateProfile, Embedded};
use openssl::ssl::{Error, HandshakeError, Ssl, SslContext, SslMethod, SslStream, SslVerifyMode, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use uuid::Uuid;

use super::recording::{Handshake, Outcome, handshakes};
use crate::support::{isolated, options};

/// OpenSSL reports the alert N of the server as reason 1000 + N.
const ALERT: i32 = 1000;

#[test]
fn every_recorded_client_reaches_the_same_stage_as_with_the_real_control_service() {
    isolated(async |directory| {
        let flocker = Embedded::start(options(&directory)).await.unwrap();
        let compare = move || {
            let identities = Identities::new(flocker.authority());
            let recording = handshakes();
            let mut differences = Vec::new();
            for handshake in &recording {
                let outcome = identities.connect(&flocker, handshake);
                if outcome != handshake.outcome {
                    let (case, expected) = (&handshake.case, &handshake.outcome);
                    differences.push(format!("{case}: {outcome:?}\n  instead of {expected:?}"));
                }
            }
            let equal = recording.len() - differences.len();
            let counts = format!(
                "recorded handshakes that end equally: {equal} of {}\n",
                recording.len()
            );
            io::stdout().write_all(counts.as_bytes()).unwrap();
            assert!(differences.is_empty(), "{counts}{}", differences.join("\n"));
            assert_eq!(equal, 16);
        };
        tokio::task::spawn_blocking(compare).await.unwrap();
    });
}

/// The identities of all recorded clients.
struct Identities {
    authority: X509,
    foreign_authority: X509,
    users: [Identity; 2],
    foreigner: Identity,
    node: Identity,
    control: Identity,
}

impl Identities {
    fn new(authority: &Authority) -> Self {
        let user = |name: &str| Role::User(name.to_owned());
        let foreign = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        Self {
            authority: authority.certificate().clone(),
            foreign_authority: foreign.certificate().clone(),
            users: ["first", "second"].map(|name| authority.issue(&user(name)).unwrap()),
            foreigner: foreign.issue(&user("first")).unwrap(),
            node: authority.issue(&Role::Node(Uuid::new_v4())).unwrap(),
            control: authority.issue(&Role::ControlService(Vec::new())).unwrap(),
        }
    }

    /// Requests the version as the client of a recorded case did.
    fn connect(&self, flocker: &Embedded, handshake: &Handshake) -> Outcome {
        let case = handshake.case.strip_prefix("tls: ").unwrap();
        let (case, version) = match case.rsplit_once(" TLS") {
            Some((case, "1.2")) => (case, SslVersion::TLS1_2),
            Some((case, "1.3")) => (case, SslVersion::TLS1_3),
            _ => (case, SslVersion::TLS1_3),
        };
        let identity = match case {
            "no client cert" => None,
            "second user cert" => Some(&self.users[1]),
            "foreign CA client cert" => Some(&self.foreigner),
            "node cert on REST port" => Some(&self.node),
            "control cert as client" => Some(&self.control),
            _ => Some(&self.users[0]),
        };
        let trusted = match case {
            "wrong CA trusted by client" => &self.foreign_authority,
            _ => &self.authority,
        };
        let mut context = SslContext::builder(SslMethod::tls_client()).unwrap();
        context.set_min_proto_version(Some(version)).unwrap();
        context.set_max_proto_version(Some(version)).unwrap();
        context.set_verify(SslVerifyMode::PEER);
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(trusted.clone()).unwrap();
        context.set_cert_store(store.build());
        if let Some(identity) = identity {
            context.set_certificate(identity.certificate()).unwrap();
            context.set_private_key(identity.key()).unwrap();
        }
        let mut ssl = Ssl::new(&context.build()).unwrap();
        match handshake.server_name.parse() {
            Ok(address) => ssl.param_mut().set_ip(address).unwrap(),
            Err(_) => ssl.param_mut().set_host(&handshake.server_name).unwrap(),
        }
        match ssl.connect(TcpStream::connect(flocker.address()).unwrap()) {
            Ok(stream) => request(stream),
            Err(HandshakeError::Failure(stream)) => {
                let verdict = stream.ssl().verify_result();
                let trusts = verdict == openssl::x509::X509VerifyResult::OK;
                Outcome {
                    alert: trusts.then(|| alert(stream.error())),
                    refusal: (!trusts).then(|| sentence(verdict.error_string())),
                    ..Outcome::at("handshake")
                }
            }
            Err(error) => panic!("{}: {error}", handshake.case),
        }
    }
}

impl Outcome {
    fn at(stage: &str) -> Self {
        Self {
            stage: stage.to_owned(),
            protocol: None,
            cipher: None,
            alert: None,
            refusal: None,
            status: None,
        }
    }
}

/// Sends a request over a connection whose handshake is complete for the client.
fn request(mut stream: SslStream<TcpStream>) -> Outcome {
    let mut outcome = Outcome {
        protocol: Some(stream.ssl().version_str().to_owned()),
        cipher: stream
            .ssl()
            .current_cipher()
            .map(|cipher| cipher.name().to_owned()),
        ..Outcome::at("request")
    };
    let request = b"GET /v1/version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.ssl_write(request).unwrap();
    let mut answer = [0; 12];
    match stream.ssl_read(&mut answer) {
        Ok(_) => outcome.status = str::from_utf8(&answer).unwrap()[9..].parse().ok(),
        Err(error) => outcome.alert = Some(alert(&error)),
    }
    outcome
}

/// Returns the name of the alert that ended a connection.
fn alert(error: &Error) -> String {
    let code = error.ssl_error().unwrap().errors()[0].reason_code() - ALERT;
    match code {
        40 => "handshake failure".to_owned(),
        48 => "unknown ca".to_owned(),
        80 => "internal error".to_owned(),
        116 => "certificate required".to_owned(),
        other => format!("alert {other}: {error}"),
    }
}

/// Newer versions of OpenSSL spell this message in lower case.
fn sentence(text: &str) -> String {
    match text {
        "hostname mismatch" => "Hostname mismatch".to_owned(),
        other => other.to_owned(),
    }
}
