//! Which control services a client trusts.

use openssl::ssl::SslVersion;

use super::{
    client, full_message,
    pki::{self, CertificateRequest, OTHER, V1, V3},
    server::{Server, stock_tls, tls},
    settings,
};
use crate::{Client, Credentials, Error, TlsKind};

/// Sends a request to a control service that presents this certificate, and returns the failure.
async fn refusal_of(request: CertificateRequest<'_>) -> Error {
    let server = Server::of_version(tls(&V1, &V1.issue(&request), SslVersion::TLS1_3));
    let error = client(server.address, V1.credentials())
        .version()
        .await
        .unwrap_err();
    assert!(
        server.requests().is_empty(),
        "no request may be sent to an untrusted service"
    );
    error
}

#[tokio::test]
async fn certificates_of_version_1_and_3_work_under_tls_1_2_and_1_3() {
    for authority in [&*V1, &*V3] {
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let server = Server::of_version(tls(authority, &authority.control(), version));
            let client = client(server.address, authority.credentials());
            assert_eq!(client.version().await.unwrap(), "1.15.0");
        }
    }
}

#[tokio::test]
async fn keys_in_pkcs1_and_sec1_form_work() {
    let server = Server::of_version(stock_tls(&V1));
    let rsa = pki::rsa_key();
    let ec = pki::ec_key();
    let keys = [
        (
            "RSA PRIVATE KEY",
            rsa.rsa().unwrap().private_key_to_pem().unwrap(),
            rsa,
        ),
        (
            "EC PRIVATE KEY",
            ec.ec_key().unwrap().private_key_to_pem().unwrap(),
            ec,
        ),
    ];
    for (label, pem, key) in keys {
        assert!(pem.starts_with(format!("-----BEGIN {label}-----").as_bytes()));
        let user = V1.issue(&CertificateRequest {
            key,
            ..CertificateRequest::for_name("user-plugin")
        });
        let credentials = Credentials::from_pem(&V1.pem(), &user.pem(), &pem).unwrap();
        assert_eq!(
            client(server.address, credentials).version().await.unwrap(),
            "1.15.0"
        );
    }
}

#[tokio::test]
async fn the_name_in_the_certificate_counts_and_not_the_host() {
    let server = Server::of_version(stock_tls(&V1));
    for (name, welcome) in [
        ("control-service", true),
        ("flocker.example", true),
        ("127.0.0.1.example", false),
    ] {
        let settings = crate::ClientSettings {
            server_name: name.to_owned(),
            ..settings(server.address, V1.credentials())
        };
        let answer = Client::new(settings).unwrap().version().await;
        if welcome {
            assert_eq!(answer.unwrap(), "1.15.0");
            continue;
        }
        let error = answer.unwrap_err();
        let expected = TlsKind::WrongName {
            expected: name.to_owned(),
        };
        assert!(
            matches!(&error, Error::Tls { kind, .. } if *kind == expected),
            "{error:?}"
        );
        assert!(full_message(&error).contains("does not carry the expected name `127.0.0.1.example`"));
    }
}

#[tokio::test]
async fn a_server_name_that_no_certificate_can_carry_is_refused_at_once() {
    let address = "127.0.0.1:4523".parse().unwrap();
    for name in ["", "10.0.0.1", "[::1]", "a b", "user@host", "host:1", "host/path"] {
        let settings = crate::ClientSettings {
            server_name: name.to_owned(),
            ..settings(address, V1.credentials())
        };
        assert!(
            matches!(Client::new(settings), Err(Error::Invalid { .. })),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_control_service_of_another_cluster_is_recognised() {
    let server = Server::of_version(stock_tls(&OTHER));
    let error = client(server.address, V1.credentials())
        .version()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: TlsKind::UnknownAuthority,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(
        full_message(&error).contains("different clusters"),
        "{}",
        full_message(&error)
    );
    assert!(!error.is_unclear());
}

#[tokio::test]
async fn a_new_cluster_of_the_same_name_is_recognised_as_another_one() {
    // Both are named `first`, so only the signature differs.
    let server = Server::of_version(stock_tls(&V3));
    let error = client(server.address, V1.credentials())
        .version()
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: TlsKind::UnknownAuthority,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_control_service_with_a_certificate_outside_its_validity_is_recognised() {
    let error = refusal_of(CertificateRequest::expired("control-service")).await;
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: TlsKind::Expired,
                ..
            }
        ),
        "{error:?}"
    );
    let error = refusal_of(CertificateRequest::premature("control-service")).await;
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: TlsKind::NotYetValid,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn neither_a_node_nor_a_user_passes_as_the_control_service() {
    let error = refusal_of(CertificateRequest::for_name(
        "node-0fbbd6e1-f558-4ea3-b2fe-b0268d12322a",
    ))
    .await;
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: TlsKind::WrongName { .. },
                ..
            }
        ),
        "{error:?}"
    );
    let error = refusal_of(CertificateRequest::for_name("user-mallory")).await;
    assert!(
        matches!(
            error,
            Error::Tls {
                kind: TlsKind::Untrusted { .. },
                ..
            }
        ),
        "{error:?}"
    );
}
