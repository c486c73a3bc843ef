//! How a client reports that the control service does not trust it.

use std::sync::Arc;

use openssl::ssl::SslVersion;
use reqwest::{Certificate, Identity};

use super::{
    full_message, new_dataset,
    pki::{CertificateRequest, Issued, OTHER, V1},
    server::{Server, tls},
    settings,
};
use crate::{Client, Error, Refusal, resolver::ServiceResolver, transport::Transport};

/// Returns a client that presents this certificate without the checks that `Credentials` makes.
fn client_presenting(server: &Server, presented: Option<&Issued>) -> Client {
    let settings = settings(server.address, V1.credentials());
    let authorities = vec![Certificate::from_pem(&V1.pem()).unwrap()];
    let identity =
        presented.map(|issued| Identity::from_pkcs8_pem(&issued.pem(), &issued.key_pem()).unwrap());
    let resolver = Arc::new(ServiceResolver::new("127.0.0.1"));
    Client::over(Transport::new(settings, authorities, identity, resolver).unwrap())
}

/// Reads the version and creates a dataset under both versions of TLS; returns how each was refused.
async fn refusals(presented: Option<&Issued>) -> Vec<(SslVersion, Refusal)> {
    let mut refusals = Vec::new();
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let server = Server::of_version(tls(&V1, &V1.control(), version));
        let client = client_presenting(&server, presented);
        for error in [
            client.version().await.unwrap_err(),
            client.create_dataset(&new_dataset()).await.unwrap_err(),
        ] {
            assert!(!error.is_unclear(), "a refused write has no effect: {error:?}");
            match error {
                Error::Certificate { refusal, .. } => refusals.push((version, refusal)),
                other => panic!("{version:?}: {other:?}"),
            }
        }
        assert!(server.requests().is_empty());
    }
    refusals.dedup();
    refusals
}

#[tokio::test]
async fn a_missing_certificate_is_reported_as_such() {
    let expected = [
        (SslVersion::TLS1_2, Refusal::Unacceptable),
        (SslVersion::TLS1_3, Refusal::Missing),
    ];
    assert_eq!(refusals(None).await, expected);
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_reported_as_such() {
    let expected = [
        (SslVersion::TLS1_2, Refusal::UnknownAuthority),
        (SslVersion::TLS1_3, Refusal::UnknownAuthority),
    ];
    assert_eq!(refusals(Some(&OTHER.user())).await, expected);
}

#[tokio::test]
async fn a_certificate_that_is_not_a_users_is_reported_as_such() {
    let expected = [
        (SslVersion::TLS1_2, Refusal::NotUser),
        (SslVersion::TLS1_3, Refusal::NotUser),
    ];
    let node = V1.issue(&CertificateRequest::for_name(
        "node-0fbbd6e1-f558-4ea3-b2fe-b0268d12322a",
    ));
    assert_eq!(refusals(Some(&node)).await, expected);
}

#[tokio::test]
async fn an_expired_certificate_is_reported_as_such() {
    let expected = [
        (SslVersion::TLS1_2, Refusal::Expired),
        (SslVersion::TLS1_3, Refusal::Expired),
    ];
    assert_eq!(
        refusals(Some(&V1.issue(&CertificateRequest::expired("user-plugin")))).await,
        expected
    );
}

#[tokio::test]
async fn a_refusal_says_which_control_service_and_what_to_do() {
    let server = Server::of_version(tls(&V1, &V1.control(), SslVersion::TLS1_3));
    let node = V1.issue(&CertificateRequest::for_name("node-x"));
    let text = full_message(
        &client_presenting(&server, Some(&node))
            .version()
            .await
            .unwrap_err(),
    );
    assert!(text.contains(&format!("https://{}", server.address)), "{text}");
    assert!(text.contains("flocker-ca create-api-certificate"), "{text}");
    assert!(
        text.contains("alert"),
        "the library's own words come last: {text}"
    );
}
