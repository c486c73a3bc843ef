//! The files of the authority in the data directory, and those that clients need.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use host_fs::durable::{make_directory, replace_file_with};
use host_fs::{Links, read_regular};
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;
use uuid::Uuid;

use super::authority::{Authority, Identity, Role, TWENTY_YEARS, new_key};
use crate::Error;
use crate::data_dir::remove_unfinished;
use crate::options::{CertificateProfile, NodeInfo};

/// The largest file in bytes that is read.
const LARGEST: u64 = 1 << 20;
const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;
/// What a mode allows to other users than the owner.
const OTHERS: u32 = 0o077;
const CLUSTER: &str = "cluster";
const CONTROL: &str = "control-service";
const PLUGIN: &str = "plugin";

/// The identities of the control service and of its client.
pub(crate) struct Pki {
    pub(crate) authority: Authority,
    pub(crate) control: Identity,
    plugin: Identity,
}

impl Pki {
    /// Reads the keys of an earlier run, or generates new ones. Blocks, for as long as generating RSA keys takes.
    ///
    /// The control service's certificate is issued again at each start, because its address may have changed.
    pub(crate) fn open(
        directory: &Path,
        cluster: Uuid,
        profile: CertificateProfile,
        address: IpAddr,
    ) -> Result<Self, Error> {
        make_directory(directory).map_err(Error::file("create", directory))?;
        remove_unfinished(directory);
        let new_authority = || Authority::new(cluster, profile).map(|authority| authority.identity);
        let identity = read_or_create(directory, CLUSTER, new_authority)?;
        let authority = Authority {
            identity,
            cluster,
            profile,
        };
        let role = Role::ControlService(addresses(address));
        let key = read_key(directory, CONTROL)?
            .map_or_else(new_key, Ok)
            .map_err(certificate_error(creating(CONTROL)))?;
        let certificate = authority
            .certify(&role, &key, &TWENTY_YEARS)
            .map_err(certificate_error(creating(CONTROL)))?;
        let control = Identity { certificate, key };
        write_identity(directory, CONTROL, &control)?;
        let plugin = read_or_create(directory, PLUGIN, || {
            authority.issue(&Role::User(PLUGIN.to_owned()))
        })?;
        Ok(Self {
            authority,
            control,
            plugin,
        })
    }

    /// Writes the client's files: `cluster.crt`, `plugin.crt`, `plugin.key`, and the id of each node.
    pub(crate) fn write_client_files(&self, directory: &Path, nodes: &[NodeInfo]) -> Result<(), Error> {
        make_directory(directory).map_err(Error::file("create", directory))?;
        remove_unfinished(directory);
        let cluster = self
            .authority
            .certificate()
            .to_pem()
            .map_err(certificate_error(encoding(CLUSTER)))?;
        write(&directory.join("cluster.crt"), &cluster, PUBLIC)?;
        write_identity(directory, PLUGIN, &self.plugin)?;
        for node in nodes {
            let path = directory.join(format!("node-{}.id", node.number));
            write(&path, format!("{}\n", node.uuid).as_bytes(), PUBLIC)?;
        }
        Ok(())
    }
}

/// Returns the addresses by which clients may verify the control service.
fn addresses(listening: IpAddr) -> Vec<IpAddr> {
    let mut addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if !listening.is_unspecified() && !addresses.contains(&listening) {
        addresses.push(listening);
    }
    addresses
}

/// Returns the identity of an earlier run, or creates one and stores it.
fn read_or_create(
    directory: &Path,
    name: &str,
    new: impl FnOnce() -> Result<Identity, ErrorStack>,
) -> Result<Identity, Error> {
    if let Some(identity) = read_identity(directory, name)? {
        return Ok(identity);
    }
    let identity = new().map_err(certificate_error(creating(name)))?;
    write_identity(directory, name, &identity)?;
    Ok(identity)
}

fn read_identity(directory: &Path, name: &str) -> Result<Option<Identity>, Error> {
    let Some(key) = read_key(directory, name)? else {
        return Ok(None);
    };
    let path = directory.join(format!("{name}.crt"));
    let Some(pem) = read(&path)? else {
        return Ok(None);
    };
    let certificate = X509::from_pem(&pem).map_err(certificate_error(format!(
        "read the certificate {}",
        path.display()
    )))?;
    Ok(Some(Identity { certificate, key }))
}

fn read_key(directory: &Path, name: &str) -> Result<Option<PKey<Private>>, Error> {
    let path = directory.join(format!("{name}.key"));
    let Some(pem) = read(&path)? else {
        return Ok(None);
    };
    protect_key(&path)?;
    PKey::private_key_from_pem(&pem)
        .map(Some)
        .map_err(certificate_error(format!("read the key {}", path.display())))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read_regular(path, LARGEST, Links::Refuse) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
}

/// Makes a key readable by its owner only, and warns if it was not.
fn protect_key(path: &Path) -> Result<(), Error> {
    let mode = fs::metadata(path)
        .map_err(Error::file("examine", path))?
        .permissions()
        .mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    tracing::warn!(
        "The key {} could be read by other users, which mode {:04o} allowed; it is protected now, but a user who has read it \
         can act as its owner: remove the directory {} to have new keys made",
        path.display(),
        mode & 0o7777,
        path.parent().unwrap_or(path).display()
    );
    fs::set_permissions(path, Permissions::from_mode(SECRET)).map_err(Error::file("protect", path))
}

/// Writes the key before the certificate, so that a certificate on disk always has its key.
fn write_identity(directory: &Path, name: &str, identity: &Identity) -> Result<(), Error> {
    let key = identity.key_pem().map_err(certificate_error(encoding(name)))?;
    let certificate = identity
        .certificate_pem()
        .map_err(certificate_error(encoding(name)))?;
    write(&directory.join(format!("{name}.key")), &key, SECRET)?;
    write(&directory.join(format!("{name}.crt")), &certificate, PUBLIC)
}

/// Replaces a file atomically, unless it has the content already.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    // What cannot be read, such as a link, is replaced.
    if read(path).is_ok_and(|found| found.as_deref() == Some(content)) {
        return fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Error::file("protect", path));
    }
    replace_file_with(path, mode, |file| file.write_all(content)).map_err(Error::file("write", path))
}

fn creating(name: &str) -> String {
    format!("create the certificate {name}.crt")
}

fn encoding(name: &str) -> String {
    format!("encode the certificate {name}.crt")
}

fn certificate_error(action: String) -> impl FnOnce(ErrorStack) -> Error {
    move |source| Error::Certificate { action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &Path) -> Pki {
        let address = Ipv4Addr::new(192, 0, 2, 1).into();
        Pki::open(directory, Uuid::nil(), CertificateProfile::V1, address).unwrap()
    }

    #[test]
    fn a_restart_keeps_the_authority_and_the_plugin_certificate() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (open(directory.path()), open(directory.path()));
        assert_eq!(
            first.authority.certificate().to_pem().unwrap(),
            second.authority.certificate().to_pem().unwrap()
        );
        assert_eq!(
            first.plugin.certificate_pem().unwrap(),
            second.plugin.certificate_pem().unwrap()
        );
        assert_eq!(
            first.control.key_pem().unwrap(),
            second.control.key_pem().unwrap()
        );
    }

    #[test]
    fn client_files_are_complete_and_only_root_reads_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let client = directory.path().join("client");
        let node = NodeInfo {
            number: 1,
            uuid: Uuid::new_v4(),
            mount_root: "/flocker".into(),
        };
        open(directory.path())
            .write_client_files(&client, std::slice::from_ref(&node))
            .unwrap();

        let mode = fs::metadata(client.join("plugin.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_to_string(client.join("node-1.id")).unwrap().trim(),
            node.uuid.to_string()
        );
        let mut names: Vec<_> = fs::read_dir(&client)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["cluster.crt", "node-1.id", "plugin.crt", "plugin.key"]);
    }
}
