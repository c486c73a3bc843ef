//! The way to Flocker's control service: its name, the network, TLS, its answer and its clock.

use std::time::{Duration, SystemTime};

use flocker_client::{Client, ClientSettings, Credentials, Error, Refusal, TlsKind, TransportKind};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};

use super::super::survey::Survey;
use super::certificates::{copy_cluster_certificate, renew, set_clock};
use super::check::{Check, Subject};
use super::examination::Examination;
use super::examined::FirstAnswer;
use super::finding::Finding;
use crate::config::FlockerConfig;
use crate::error;
use crate::flocker::cluster::{Cluster, Flocker};
use crate::operation::Elapsed;
use crate::telemetry::spawn_blocking;

/// How long the name may take to be looked up, and the host to accept a connection, TLS included.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(8);
/// How far the clocks of two machines may differ. Flocker's agents use lease times of seconds and certificates of years.
const CLOCKS_DIFFER: Duration = Duration::from_secs(60);

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "name-resolution",
        subject: Subject::Any,
        needs: &[],
        run: name_resolution,
    },
    Check {
        name: "tcp",
        subject: Subject::Any,
        needs: &["name-resolution"],
        run: tcp,
    },
    Check {
        name: "tls",
        subject: Subject::Any,
        needs: &["certificates", "tcp"],
        run: tls,
    },
    Check {
        name: "control-service",
        subject: Subject::Any,
        needs: &["tls"],
        run: control_service,
    },
    Check {
        name: "clock",
        subject: Subject::Any,
        needs: &["control-service"],
        run: clock,
    },
];

fn name_resolution<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let service = &examination.config.flocker.control_service;
    let (host, port) = (service.host(), service.port());
    async move {
        match timeout(CONNECTS_WITHIN, lookup_host((host, port))).await {
            Ok(Ok(addresses)) => {
                examination.addresses = addresses.collect();
                let addresses: Vec<_> = examination
                    .addresses
                    .iter()
                    .map(|address| address.ip().to_string())
                    .collect();
                if addresses.is_empty() {
                    return unknown_host(Finding::error(format!("{host} has no address")), host);
                }
                Finding::ok(format!("{host} is {}", addresses.join(", ")))
            }
            Ok(Err(error)) => unknown_host(
                Finding::error(format!("{host} cannot be looked up: {error}")),
                host,
            ),
            Err(_elapsed) => unknown_host(
                Finding::error(format!(
                    "the lookup of {host} has not ended within {} s",
                    CONNECTS_WITHIN.as_secs()
                )),
                host,
            ),
        }
    }
    .boxed()
}

fn unknown_host(finding: Finding, host: &str) -> Finding {
    finding.command(
        "correct control_service, or the name server of this machine (/etc/resolv.conf, in a pod dnsPolicy)",
        format!("getent hosts {host}"),
    )
}

fn tcp<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let (addresses, host) = (examination.addresses.clone(), examination.control_host());
    async move {
        let mut failed = Vec::new();
        let mut refused = false;
        for address in addresses {
            match timeout(CONNECTS_WITHIN, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Finding::ok(format!("{address} accepts connections")),
                Ok(Err(error)) => {
                    refused |= error.kind() == std::io::ErrorKind::ConnectionRefused;
                    failed.push(format!("{address}: {error}"));
                }
                Err(_elapsed) => failed.push(format!(
                    "{address}: no answer within {} s",
                    CONNECTS_WITHIN.as_secs()
                )),
            }
        }
        let seen = failed.join("; ");
        if refused {
            Finding::error(format!(
                "nothing listens at the port, so the control service is stopped: {seen}"
            ))
            .command(
                "start it on its host, or correct control_service",
                format!("ssh {host} systemctl start flocker-control"),
            )
        } else {
            Finding::error(format!(
                "the host of the control service cannot be reached: {seen}"
            ))
            .command(
                "see whether the host runs, and which firewall or route is in between",
                format!("ping -c 3 {host}"),
            )
        }
    }
    .boxed()
}

fn tls<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let flocker = &examination.config.flocker;
    async move {
        let Some(credentials) = examination.credentials.clone() else {
            return Finding::skipped("there are no certificates");
        };
        let answer = ask(flocker, credentials).await;
        let finding = match &answer.version {
            Err(error) => of_handshake(error, flocker),
            Ok(_) => None,
        };
        examination.answer = Some(answer);
        finding.unwrap_or_else(|| {
            Finding::ok(format!(
                "the control service has the certificate of {}, signed by the cluster, and accepts the user certificate",
                flocker.server_name
            ))
        })
    }
    .boxed()
}

async fn ask(flocker: &FlockerConfig, credentials: Credentials) -> FirstAnswer {
    let settings = settings(flocker, credentials);
    let client = match spawn_blocking(move || Client::new(settings)).await {
        Ok(client) => client,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    };
    let began = Instant::now();
    let answer = match &client {
        Ok(client) => client.version_and_time().await,
        Err(_) => Ok((String::new(), None)),
    };
    let took = began.elapsed();
    let (version, time) = match (client, answer) {
        (Err(error), _) | (Ok(_), Err(error)) => (Err(error), None),
        (Ok(_), Ok((version, time))) => (Ok(version), time),
    };
    FirstAnswer {
        version,
        clocks: time.map(|time| (time, SystemTime::now())),
        took,
    }
}

fn settings(flocker: &FlockerConfig, credentials: Credentials) -> ClientSettings {
    ClientSettings {
        connect_timeout: CONNECTS_WITHIN,
        timeout: ANSWERS_WITHIN,
        ..flocker.client(credentials)
    }
}

/// Returns what is wrong with the handshake, or nothing if an error is about what came after it.
fn of_handshake(error: &Error, flocker: &FlockerConfig) -> Option<Finding> {
    let host = flocker.control_service.host();
    let finding = Finding::error(error::chain(error));
    Some(match error {
        Error::Tls { kind, .. } => match kind {
            TlsKind::UnknownAuthority => copy_cluster_certificate(finding, flocker),
            TlsKind::NotYetValid => set_clock(finding),
            TlsKind::Expired => finding.command(
                "make another certificate for the control service where the cluster's key is, copy it to its host, and restart it there",
                format!("flocker-ca create-control-certificate {host}"),
            ),
            TlsKind::WrongName { .. } => finding.next("set server_name, or correct control_service, which may be another host"),
            TlsKind::NotTls => finding.next("correct the port in control_service; Flocker's REST API has 4523"),
            _ => finding.next("see the log of flocker-control on its host"),
        },
        Error::Certificate { refusal, .. } => match refusal {
            Refusal::Expired => set_clock(finding),
            _ => renew(finding, flocker),
        },
        Error::OutOfDate { .. } => renew(finding, flocker),
        Error::Transport {
            kind: TransportKind::ConnectTimeout(_),
            ..
        } => hangs(format!(
            "the port accepts connections, but TLS has not been answered within {} s: the control service hangs",
            CONNECTS_WITHIN.as_secs()
        ), host),
        _ => return None,
    })
}

fn hangs(seen: String, host: &str) -> Finding {
    Finding::error(seen).command(
        "restart it on its host; no volume is lost by that",
        format!("ssh {host} systemctl restart flocker-control"),
    )
}

fn control_service<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    async move {
        let host = examination.control_host();
        let (Some(answer), Some(credentials)) = (&examination.answer, examination.credentials.clone()) else {
            return Finding::skipped("it was not asked");
        };
        let (version, took) = match &answer.version {
            Ok(version) => (version.clone(), answer.took),
            Err(
                error @ Error::Transport {
                    kind: TransportKind::Timeout(_),
                    ..
                },
            ) => {
                return hangs(error::chain(error), host);
            }
            Err(error) => {
                return Finding::error(error::chain(error)).command(
                    "see its log on its host",
                    format!("ssh {host} journalctl -u flocker-control -n 100"),
                );
            }
        };
        let config = examination.config;
        let flocker = Flocker::new(settings(&config.flocker, credentials));
        let cluster = Cluster::new(flocker, config.node_loss.takeover_grace);
        let began = Instant::now();
        match Survey::of(cluster, &config.node, examination.directories()).await {
            Ok(survey) => {
                let finding = Finding::ok(format!(
                    "Flocker {version} has answered within {}, and lists {} volumes, {} nodes and {} leases",
                    Elapsed(took),
                    survey.live().count(),
                    survey.snapshot.nodes().count(),
                    survey.snapshot.leases().count()
                ));
                examination.survey = Some(survey);
                finding
            }
            Err(failure) => {
                let seen = failure.lines().join("; ");
                if began.elapsed() >= ANSWERS_WITHIN {
                    return hangs(seen, host);
                }
                Finding::error(seen).command(
                    "see its log on its host",
                    format!("ssh {host} journalctl -u flocker-control -n 100"),
                )
            }
        }
    }
    .boxed()
}

fn clock<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let host = examination.control_host();
    let clocks = examination.answer.as_ref().and_then(|answer| answer.clocks);
    let finding = match clocks {
        None => Finding::ok(
            "it is within the validity of the certificates; the control service does not say its time",
        ),
        Some((theirs, ours)) => of_clocks(theirs, ours, host),
    };
    async move { finding }.boxed()
}

fn of_clocks(theirs: SystemTime, ours: SystemTime, host: &str) -> Finding {
    let (differ, how) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if differ > CLOCKS_DIFFER {
        Finding::warning(format!(
            "the clock of this machine is {} {how} that of the control service",
            Elapsed(differ)
        ))
        .command(
            format!("set the clock of the machine that is wrong, this one or {host}"),
            "timedatectl set-ntp true",
        )
    } else {
        Finding::ok(format!(
            "it differs from that of the control service by at most {} s",
            differ.as_secs() + 1
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Outcome;
    use super::*;

    #[test]
    fn a_clock_may_differ_by_a_minute_in_either_direction() {
        let theirs = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (seconds, outcome) in [(0, Outcome::Ok), (60, Outcome::Ok), (61, Outcome::Warning)] {
            let difference = Duration::from_secs(seconds);
            for ours in [theirs + difference, theirs - difference] {
                assert_eq!(
                    of_clocks(theirs, ours, "10.0.0.1").outcome,
                    outcome,
                    "{seconds} s"
                );
            }
        }
        let behind = of_clocks(theirs, theirs - Duration::from_secs(252), "10.0.0.1");
        assert!(
            behind
                .seen
                .contains("4 min 12 s behind that of the control service"),
            "{behind:?}"
        );
    }
}
