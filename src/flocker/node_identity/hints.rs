//! What this machine itself says about which node it is.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;

use flocker_client::Node;
use openssl::nid::Nid;
use openssl::x509::X509;
use uuid::Uuid;

use super::Sources;
use crate::error::{Error, Result, Situation};

/// What is in front of the UUID in the common name of a node's certificate.
const NODE_NAME: &str = "node-";

/// Returns the UUID that was set, in the settings or in the file.
pub(super) fn configured(sources: &Sources) -> Result<Option<Uuid>> {
    if sources.node_id.is_some() {
        return Ok(sources.node_id);
    }
    let path = &sources.node_id_file;
    let Some(text) = read(path)? else { return Ok(None) };
    let text = String::from_utf8_lossy(&text);
    Uuid::try_parse(text.trim()).map(Some).map_err(|_| {
        let start: String = text.trim().chars().take(40).collect();
        let text = format!(
            "{} should hold the UUID of this node and holds {start:?}",
            path.display()
        );
        Error::new(Situation::Internal, text)
    })
}

/// Returns the boot id of this machine, by which Flocker's agent reports.
pub(super) fn boot_id(path: &Path) -> Result<Uuid> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::internal(format!("read the boot id from {}", path.display()), error))?;
    Uuid::try_parse(text.trim())
        .map_err(|error| Error::internal(format!("read a boot id from {}", path.display()), error))
}

/// Returns the node that a certificate of Flocker's agent is made out to.
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

/// Returns the one node whose address belongs to this machine; several may share one behind a NAT.
pub(super) fn at_an_address_of_ours(nodes: &[Node]) -> Option<Uuid> {
    let mut ours = nodes.iter().filter(|node| node.host.parse().is_ok_and(is_ours));
    match (ours.next(), ours.next()) {
        (Some(node), None) => Some(node.uuid),
        _ => None,
    }
}

/// Whether an address belongs to this machine and no other: only then can a socket be bound to it.
fn is_ours(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified() && UdpSocket::bind((address, 0)).is_ok()
}

/// Reads a file that need not be there.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match std::fs::read(path) {
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
