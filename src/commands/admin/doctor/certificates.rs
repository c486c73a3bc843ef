//! The certificates and the key with which the plugin authenticates to Flocker.

use std::time::SystemTime;

use flocker_client::{Credentials, CredentialsError, CredentialsFile, CredentialsProblem};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::check::{Check, Subject};
use super::examination::Examination;
use super::finding::Finding;
use crate::config::FlockerConfig;
use crate::error;
use crate::telemetry::spawn_blocking;

/// How many days before their end certificates are warned about.
const ENDS_SOON: i64 = 30;

pub(super) const CHECKS: &[Check] = &[Check {
    name: "certificates",
    subject: Subject::Configuration,
    needs: &[],
    run: certificates,
}];

fn certificates<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let flocker = examination.config.flocker.clone();
    async move {
        let blocking = flocker.clone();
        match spawn_blocking(move || blocking.credentials()).await {
            Ok(Ok(credentials)) => {
                let finding = of_valid(&credentials, &flocker);
                examination.credentials = Some(credentials);
                finding
            }
            Ok(Err(error)) => of_invalid(&error, &flocker),
            Err(error) => Finding::error(format!("they cannot be read: {error}")),
        }
    }
    .boxed()
}

fn of_valid(credentials: &Credentials, flocker: &FlockerConfig) -> Finding {
    let end = |moment| humantime::format_rfc3339_seconds(moment).to_string();
    let key = flocker.user_key.display();
    let days = credentials.days_left(SystemTime::now());
    let seen = format!(
        "that of user {} is valid until {}, that of the cluster until {}",
        credentials.user(),
        end(credentials.user_not_after()),
        end(credentials.cluster_not_after())
    );
    if days < ENDS_SOON {
        let seen = format!("{seen}: they end in {days} days");
        if credentials.user_not_after() < credentials.cluster_not_after() {
            renew(Finding::warning(seen), flocker)
        } else {
            Finding::warning(seen).next("the cluster's authority ends: set up a new one with flocker-ca initialize, and replace all certificates")
        }
    } else if credentials.key_readable_by_others() {
        Finding::warning(format!("The key {key} is readable by other users"))
            .command("take it from them", format!("chmod 0600 {key}"))
    } else {
        Finding::ok(seen)
    }
}

fn of_invalid(error: &CredentialsError, flocker: &FlockerConfig) -> Finding {
    let finding = Finding::error(error::chain(error));
    match (error.file(), error.problem()) {
        (_, CredentialsProblem::NotYetValid { .. }) => set_clock(finding),
        (CredentialsFile::ClusterCertificate, CredentialsProblem::Expired { .. }) => {
            finding.next("the cluster's authority has ended: set up a new one with flocker-ca initialize, and replace all certificates")
        }
        (CredentialsFile::ClusterCertificate, _) | (_, CredentialsProblem::OtherAuthority { .. }) => {
            copy_cluster_certificate(finding, flocker)
        }
        (CredentialsFile::UserKey, CredentialsProblem::Encrypted) => finding.next("remove its passphrase"),
        (CredentialsFile::UserCertificate | CredentialsFile::UserKey, _) => renew(finding, flocker),
    }
}

/// Adds how the certificate of the cluster is fetched.
pub(super) fn copy_cluster_certificate(finding: Finding, flocker: &FlockerConfig) -> Finding {
    let host = flocker.control_service.host();
    finding.command(
        "copy the certificate of the cluster from the host of its control service",
        format!(
            "scp {host}:/etc/flocker/cluster.crt {}",
            flocker.cluster_cert.display()
        ),
    )
}

/// Adds how another user certificate is made.
pub(super) fn renew(finding: Finding, flocker: &FlockerConfig) -> Finding {
    finding.command(
        format!(
            "make another certificate where the cluster's key is, and copy plugin.crt to {} and plugin.key to {}",
            flocker.user_cert.display(),
            flocker.user_key.display()
        ),
        "flocker-ca create-api-certificate plugin",
    )
}

/// Adds how the clock is set.
pub(super) fn set_clock(finding: Finding) -> Finding {
    finding.command("set the clock of this machine", "timedatectl set-ntp true")
}
