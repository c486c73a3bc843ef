//! What the files and addresses of this machine say about which node it is.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use flocker_client::Node;
use host_fs::{Links, read_regular};
use openssl::nid::Nid;
use openssl::x509::X509;
use uuid::Uuid;

use super::Sources;
use crate::error::{Error, Result, Situation};
use crate::host::boot_id;

/// The largest file in bytes that is read: an id, or a certificate.
const LARGEST: u64 = 1 << 20;
/// The prefix of the UUID in the common name of a node's certificate.
const NODE_NAME: &str = "node-";

/// Returns the UUID from the settings or from the file, if either has it, and which of them.
pub(super) fn configured(sources: &Sources) -> Result<Option<(Uuid, String)>> {
    if let Some(node) = sources.node_id {
        return Ok(Some((node, "the setting node_id says so".to_owned())));
    }
    let path = &sources.node_id_file;
    let Some(text) = read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text);
    let of_file = |node| Some((node, format!("the file {} says so", path.display())));
    Uuid::try_parse(text.trim()).map(of_file).map_err(|_| {
        // What it holds may be a secret that was put into the wrong file.
        let text = format!(
            "{} should hold the UUID of this node and holds another text; write the UUID into it, or remove it",
            path.display()
        );
        Error::new(Situation::Internal, text)
    })
}

/// Returns the era of this boot.
pub(super) fn era(sources: &Sources) -> Result<Uuid> {
    let file = &sources.boot_id_file;
    boot_id(file).map_err(|error| Error::internal(format!("read the boot id from {}", file.display()), error))
}

/// Returns the node that a certificate of Flocker's agent names.
pub(super) fn certified(path: &Path) -> Result<Option<Uuid>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let certificate = X509::from_pem(&text)
        .map_err(|error| Error::internal(format!("read the node certificate {}", path.display()), error))?;
    let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    let name = name.and_then(|name| name.data().to_string().ok());
    Ok(name
        .as_deref()
        .and_then(|name| name.strip_prefix(NODE_NAME))
        .and_then(|uuid| Uuid::try_parse(uuid).ok()))
}

/// Returns the only node whose address belongs to this machine. Behind a NAT, several nodes may share an address.
pub(super) fn with_local_address(nodes: &[Node]) -> Option<Uuid> {
    let mut here = nodes.iter().filter(|node| node.host.parse().is_ok_and(is_local));
    match (here.next(), here.next()) {
        (Some(node), None) => Some(node.uuid),
        _ => None,
    }
}

/// Whether an address belongs to this machine and no other: only then can a socket be bound to it.
fn is_local(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && UdpSocket::bind((address, 0)).is_ok()
}

/// Reads a file that need not exist.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_regular(path, LARGEST, Links::Follow) {
        Ok(text) => Ok(Some(text)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Error::internal(format!("read {}", path.display()), error)),
    }
}
