//! Which clients reach HTTP, and which alert each of the others receives.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use flocker_embedded::pki::{Authority, Identity, Role};
use flocker_embedded::{CertificateProfile, Options};
use openssl::ssl::{Error, ErrorCode, HandshakeError, SslConnector, SslMethod, SslVersion};
use openssl::x509::X509;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};
use uuid::Uuid;

use crate::support::{Cluster, isolated, options};

/// OpenSSL reports the alert N of the server as reason 1000 + N.
const ALERT: i32 = 1000;
const HANDSHAKE_FAILURE: i32 = 40;
const UNKNOWN_CA: i32 = 48;
const CERTIFICATE_EXPIRED: i32 = 45;
const INTERNAL_ERROR: i32 = 80;
const CERTIFICATE_REQUIRED: i32 = 116;

#[test]
fn only_users_of_this_cluster_are_accepted_and_the_others_receive_the_alerts_of_flocker() {
    for profile in [CertificateProfile::V1, CertificateProfile::V3] {
        isolated(async move |directory| {
            let options = Options {
                certificate_profile: profile,
                ..options(&directory)
            };
            let cluster = Cluster::start_with(options).await;
            let authority = cluster.flocker.authority();
            let user = Role::User("operator".to_owned());
            let foreign = Authority::new(Uuid::new_v4(), profile)
                .unwrap()
                .issue(&user)
                .unwrap();
            let node = authority.issue(&Role::Node(Uuid::new_v4())).unwrap();
            let control = authority.issue(&Role::ControlService(Vec::new())).unwrap();
            let expired = authority.issue_for(&user, &(-2..-1)).unwrap();
            let cases = [
                (Some(authority.issue(&user).unwrap()), None, None),
                (None, Some(HANDSHAKE_FAILURE), Some(CERTIFICATE_REQUIRED)),
                (Some(foreign), Some(UNKNOWN_CA), Some(UNKNOWN_CA)),
                (Some(node), Some(INTERNAL_ERROR), Some(INTERNAL_ERROR)),
                (Some(control), Some(INTERNAL_ERROR), Some(INTERNAL_ERROR)),
                (
                    Some(expired),
                    Some(CERTIFICATE_EXPIRED),
                    Some(CERTIFICATE_EXPIRED),
                ),
            ];
            let address = cluster.flocker.address();
            let certificates = cluster.flocker.certificates().to_owned();
            let check = move || {
                for (identity, tls_1_2, tls_1_3) in cases {
                    for (version, expected) in [(SslVersion::TLS1_2, tls_1_2), (SslVersion::TLS1_3, tls_1_3)]
                    {
                        let alert = ask(address, &certificates, identity.as_ref(), version);
                        assert_eq!(alert, expected, "{profile:?} {version:?}");
                    }
                }
            };
            tokio::task::spawn_blocking(check).await.unwrap();
        });
    }
}

#[test]
fn the_profile_decides_the_version_of_all_certificates() {
    for (profile, version) in [(CertificateProfile::V1, 0), (CertificateProfile::V3, 2)] {
        isolated(async move |directory| {
            let options = Options {
                certificate_profile: profile,
                ..options(&directory)
            };
            let cluster = Cluster::start_with(options).await;
            for name in ["cluster.crt", "plugin.crt"] {
                let pem = fs::read(cluster.flocker.certificates().join(name)).unwrap();
                assert_eq!(X509::from_pem(&pem).unwrap().version(), version, "{name}");
            }
        });
    }
}

#[test]
fn clients_that_do_not_go_on_with_the_handshake_make_room_for_others() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let address = cluster.flocker.address();
        let mut silent = Vec::new();
        for _ in 0..200 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        assert_eq!(cluster.client.get("/v1/version").await.status, 200);
        let mut last = silent.pop().unwrap();
        for client in &mut silent[..100] {
            client.read_to_end(&mut Vec::new()).await.ok();
        }
        let more = timeout(Duration::ZERO, last.read_u8()).await;
        assert!(more.is_err(), "it was not the oldest, and has ended: {more:?}");
    });
}

#[test]
fn a_request_longer_than_any_object_is_refused() {
    isolated(async |directory| {
        let cluster = Cluster::start(&directory, 1).await;
        let body = json!({ "metadata": { "a": "a".repeat(5 << 20) } });
        let answer = cluster.client.post("/v1/configuration/datasets", &body).await;
        assert_eq!(answer.status, 413);
        let long = Method::GET;
        let answer = cluster.client.attempt(long, "/v1/version", |request| {
            request.header("x", "a".repeat(100_000))
        });
        assert!(answer.await.map_or(true, |answer| answer.status == 431));
        assert_eq!(cluster.client.get("/v1/version").await.status, 200);
    });
}

/// Requests the version, and returns the alert that arrives instead of an answer.
fn ask(
    address: SocketAddr,
    certificates: &Path,
    identity: Option<&Identity>,
    version: SslVersion,
) -> Option<i32> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
    connector.set_ca_file(certificates.join("cluster.crt")).unwrap();
    connector.set_min_proto_version(Some(version)).unwrap();
    connector.set_max_proto_version(Some(version)).unwrap();
    if let Some(identity) = identity {
        connector.set_certificate(identity.certificate()).unwrap();
        connector.set_private_key(identity.key()).unwrap();
    }
    let stream = std::net::TcpStream::connect(address).unwrap();
    let mut stream = match connector.build().connect("control-service", stream) {
        Ok(stream) => stream,
        Err(HandshakeError::Failure(stream)) => return Some(alert(stream.error())),
        Err(error) => panic!("{error}"),
    };
    let request = b"GET /v1/version HTTP/1.1\r\nHost: control-service\r\nConnection: close\r\n\r\n";
    stream.ssl_write(request).unwrap();
    let mut answer = [0; 12];
    match stream.ssl_read(&mut answer) {
        Ok(_) => {
            assert_eq!(&answer, b"HTTP/1.1 200");
            None
        }
        Err(error) => Some(alert(&error)),
    }
}

fn alert(error: &Error) -> i32 {
    assert_eq!(error.code(), ErrorCode::SSL, "{error}");
    error.ssl_error().unwrap().errors()[0].reason_code() - ALERT
}
