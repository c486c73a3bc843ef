//! What the plugin needs from the kernel and from the mounts of this machine, and its own socket.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::system::uname;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::check::{Check, Subject};
use super::examination::{Examination, Purpose, blocking};
use super::finding::{Finding, Outcome};
use crate::commands::serve::parts::host_settings;
use crate::config::Endpoint;
use crate::host::preconditions::{MissingCapabilities, exposed, unmet_in_pod};
use crate::telemetry::Metrics;

/// The oldest kernel on which a node works.
const OLDEST_KERNEL: (u32, u32) = (4, 11);
/// How long the plugin may take to accept a connection, and to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The beginning of every connection of a client, with settings that are the defaults.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "kernel",
        subject: Subject::Node,
        needs: &[],
        run: kernel,
    },
    Check {
        name: "capabilities",
        subject: Subject::Node,
        needs: &[],
        run: capabilities,
    },
    Check {
        name: "mount-propagation",
        subject: Subject::Node,
        needs: &[],
        run: mount_propagation,
    },
    Check {
        name: "kubelet-directory",
        subject: Subject::Node,
        needs: &[],
        run: kubelet_directory,
    },
    Check {
        name: "endpoint",
        subject: Subject::Any,
        needs: &[],
        run: endpoint,
    },
];

fn kernel<'a>(_examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let release = uname().release().to_string_lossy().into_owned();
    let (major, minor) = OLDEST_KERNEL;
    let finding = match version(&release) {
        Some(found) if found < OLDEST_KERNEL => Finding::error(format!(
            "Linux {release} is older than {major}.{minor}, which a node needs"
        ))
        .next("update the kernel"),
        Some(_) => Finding::ok(format!("Linux {release}")),
        None => Finding::warning(format!(
            "the release of the kernel, {release:?}, has no version; a node needs Linux {major}.{minor}"
        )),
    };
    async move { finding }.boxed()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn capabilities<'a>(_examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let check = || {
        let MissingCapabilities { needed, useful } = MissingCapabilities::here();
        match (needed.is_empty(), useful) {
            (false, _) => Finding::error(needed.join("; ")).next(
                "run this command as root where the plugin runs, and give the plugin what it lacks: securityContext.privileged: true in \
                 Kubernetes, --cap-add for docker and podman, CapabilityBoundingSet= for systemd",
            ),
            (true, Some(useful)) => {
                Finding::warning(useful).next("without it, no message names the processes that keep a volume busy")
            }
            (true, None) => Finding::ok("this process has all that a node needs"),
        }
    };
    // On this thread: each thread has capabilities of its own.
    let finding = check();
    async move { finding }.boxed()
}

fn mount_propagation<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let settings = host_settings(examination.config, &Metrics::default());
    let check = move || {
        let visibility = settings.visibility();
        let root = &settings.mount_root;
        let existing = root.ancestors().find_map(|above| above.canonicalize().ok());
        match visibility.not_receiving(existing.as_deref().unwrap_or(Path::new("/"))) {
            Ok(Some(holder)) => {
                let point = holder.point.display();
                return Finding::error(format!(
                    "what Flocker mounts below the mount_root {} does not reach this process, because {holder} receives no \
                     mounts from the host",
                    root.display()
                ))
                .command(
                    "make the mount shared on the host, and start the plugin again, in a container with mount propagation \
                     (Kubernetes: mountPropagation: HostToContainer; docker and podman: --volume DIR:DIR:rslave)",
                    format!("mount --make-rshared {point}"),
                );
            }
            Err(error) => return Finding::error(crate::error::chain(&error)),
            Ok(None) => {}
        }
        match visibility.obstacle() {
            Some(obstacle) => {
                Finding::error(obstacle).next("give the plugin mounts that the host sees, and start it again")
            }
            None if visibility.is_host() => Finding::ok("this process has the mounts of the host"),
            None if settings.accept_unverified_propagation => Finding::ok(
                "this process receives the mounts of the host; whether the host sees its own is not verified, as \
                 accept_unverified_propagation is set",
            ),
            None => Finding::ok("this process receives the mounts of the host, and shares mounts with it"),
        }
    };
    blocking(check).boxed()
}

fn kubelet_directory<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let settings = host_settings(examination.config, &Metrics::default());
    let directory = examination.config.kubelet.kubelet_registration_dir.clone();
    let check = move || {
        let Some(directory) = directory else {
            return Finding::skipped(
                "kubelet_registration_dir is not set: the plugin does not register with a kubelet",
            );
        };
        let unmet = unmet_in_pod(&settings, &directory);
        if unmet.is_empty() {
            Finding::ok(format!(
                "{} exists, and pods see what is mounted below the kubelet's directory",
                directory.display()
            ))
        } else {
            Finding::error(unmet.join("; ")).next("correct the volumes of the plugin's pod")
        }
    };
    blocking(check).boxed()
}

fn endpoint<'a>(examination: &'a mut Examination<'_>) -> BoxFuture<'a, Finding> {
    let (endpoint, purpose) = (examination.config.plugin.endpoint.absolute(), examination.purpose);
    async move {
        match endpoint {
            Endpoint::Unix(path) => of_socket(&path, purpose, &mut examination.plugin).await,
            Endpoint::Tcp(address) => {
                let shown = address.to_string();
                match timeout(ANSWERS_WITHIN, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => of_answer(stream, "a process", &shown).await,
                    Ok(Err(error)) => nothing_listens(&shown, &error, purpose),
                    Err(_elapsed) => hangs("a process", &shown),
                }
            }
        }
    }
    .boxed()
}

async fn of_socket(path: &Path, purpose: Purpose, plugin: &mut Option<u32>) -> Finding {
    let shown = path.display().to_string();
    let finding = match timeout(ANSWERS_WITHIN, UnixStream::connect(path)).await {
        Err(_elapsed) => hangs("a process", &shown),
        Ok(Ok(stream)) => {
            let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
            *plugin = process.and_then(|process| process.try_into().ok());
            let process = process.map_or("a process".to_owned(), described);
            of_answer(stream, &process, &shown).await
        }
        Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::error(format!("{shown} may not be used: {error}")).next("run this command as root")
        }
        Ok(Err(_)) if path.exists() && !is_socket(path) => {
            Finding::error(format!("{shown} is no socket")).next("move the file, or set another endpoint")
        }
        Ok(Err(error)) => nothing_listens(&shown, &error, purpose),
    };
    let directory = path.parent().unwrap_or(Path::new("/")).to_owned();
    let exposed = move || match exposed(&[("directory of the endpoint", &directory)]).pop() {
        Some(exposure) if finding.outcome == Outcome::Ok => {
            Finding::warning(exposure).next("give it to root alone")
        }
        _ => finding,
    };
    blocking(exposed).await
}

/// Begins HTTP/2 and waits for the first bytes of the plugin: the kernel accepts connections for a process that hangs.
async fn of_answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    process: &str,
    endpoint: &str,
) -> Finding {
    let answer = async {
        stream.write_all(HTTP2).await?;
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await
    };
    match timeout(ANSWERS_WITHIN, answer).await {
        Ok(Ok(_)) => Finding::ok(format!("{process} answers on {endpoint}")),
        Ok(Err(error)) => Finding::error(format!("{process} on {endpoint} does not speak gRPC: {error}"))
            .next("see which program that is, and set another endpoint"),
        Err(_elapsed) => hangs(process, endpoint),
    }
}

fn nothing_listens(endpoint: &str, error: &std::io::Error, purpose: Purpose) -> Finding {
    if purpose == Purpose::CheckDeep {
        return Finding::ok(format!("nothing listens on {endpoint} yet"));
    }
    Finding::warning(format!("nothing listens on {endpoint}: {error}")).next(
        "start the plugin (flocker-csi serve), or name the endpoint that it has: without it, nothing is staged and nothing unmounted",
    )
}

fn hangs(process: &str, endpoint: &str) -> Finding {
    Finding::error(format!(
        "{process} has not answered on {endpoint} within {} s: the plugin hangs, or is stopped",
        ANSWERS_WITHIN.as_secs()
    ))
    .next("restart the plugin; what is published stays published")
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn described(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim_end() {
        "" => format!("process {pid}"),
        name => format!("process {pid} ({name})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_kernel_is_read_from_its_release() {
        assert_eq!(version("6.18.44-fc-v857"), Some((6, 18)));
        assert_eq!(version("4.9.0"), Some((4, 9)));
        assert_eq!(version("linux"), None);
        assert!((4, 9) < OLDEST_KERNEL && OLDEST_KERNEL < (5, 4));
    }
}
