//! Reads certificates and keys from PEM texts.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use openssl::{
    pkey::{PKey, Private},
    x509::X509,
};
use rustix::fs::OFlags;

use super::{CredentialsError, CredentialsFile, CredentialsProblem};

/// The maximum number of bytes that are read of a file; a certificate has about 2 KiB.
const FILE_LIMIT: u64 = 1 << 20;

/// The mode bits that let a file's group, and every user, read it.
const READABLE_BY_GROUP: u32 = 0o040;
const READABLE_BY_EVERY_USER: u32 = 0o004;

/// The text of one of the files.
pub(super) struct Source {
    file: CredentialsFile,
    path: Option<PathBuf>,
    text: Vec<u8>,
    seen: Option<Stamp>,
}

/// Identifies a file and its contents: it differs once the file has been replaced or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    device_and_inode: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
    mode: u32,
    owner: u32,
}

impl Stamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            device_and_inode: (file.dev(), file.ino()),
            size: file.size(),
            written: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            mode: file.mode(),
            owner: file.uid(),
        }
    }

    /// Returns whether the file's mode lets more users read it than `user`, who has to.
    ///
    /// The group of another user's file does not count: `user` may have access through that group alone, as to a secret
    /// of Kubernetes.
    fn is_exposed_by(&self, user: u32) -> bool {
        self.mode & READABLE_BY_EVERY_USER != 0 || (self.owner == user && self.mode & READABLE_BY_GROUP != 0)
    }

    /// Returns the stamp of the file that exists at a path now.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().as_ref().map(Self::of)
    }
}

impl Source {
    pub(super) fn text(file: CredentialsFile, text: &[u8]) -> Self {
        Self {
            file,
            path: None,
            text: text.to_owned(),
            seen: None,
        }
    }

    pub(super) fn readable_by_others(&self) -> bool {
        let user = rustix::process::geteuid().as_raw();
        self.seen.as_ref().is_some_and(|seen| seen.is_exposed_by(user))
    }

    /// Returns the path of the text and the stamp of its file, taken before the text was read.
    pub(super) fn origin(&self) -> Option<(PathBuf, Stamp)> {
        self.path.clone().zip(self.seen.clone())
    }

    pub(super) fn error(&self, problem: CredentialsProblem) -> CredentialsError {
        CredentialsError::new(self.file, self.path.clone(), problem)
    }

    fn contains(&self, label: &str) -> bool {
        let label = label.as_bytes();
        self.text.windows(label.len()).any(|text| text == label)
    }

    fn require_pem(&self) -> Result<(), CredentialsError> {
        if self.contains("-----BEGIN ") {
            Ok(())
        } else {
            Err(self.error(CredentialsProblem::NotPem))
        }
    }
}

/// Reads a file.
pub(super) fn file(file: CredentialsFile, path: &Path) -> Result<Source, CredentialsError> {
    let mut source = Source {
        file,
        path: Some(path.to_owned()),
        text: Vec::new(),
        seen: None,
    };
    let read = || -> io::Result<(Stamp, Vec<u8>)> {
        // A pipe or a device is not waited for. Links are followed: Kubernetes mounts secrets through them.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = fs::OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits().cast_signed())
            .open(path)?;
        let found = opened.metadata()?;
        if !found.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not a regular file",
            ));
        }
        // Before the text is read, so that a write during the read shows later.
        let seen = Stamp::of(&found);
        let mut text = Vec::new();
        opened.take(FILE_LIMIT).read_to_end(&mut text)?;
        Ok((seen, text))
    };
    match read() {
        Ok((seen, text)) => {
            source.seen = Some(seen);
            source.text = text;
            Ok(source)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(source.error(CredentialsProblem::Missing))
        }
        Err(error) => Err(source.error(CredentialsProblem::Unreadable(error))),
    }
}

/// Returns all certificates of a text, at least one.
pub(super) fn certificates(source: &Source) -> Result<Vec<X509>, CredentialsError> {
    source.require_pem()?;
    let certificates = X509::stack_from_pem(&source.text)
        .map_err(|error| source.error(CredentialsProblem::Malformed(error)))?;
    if certificates.is_empty() {
        return Err(source.error(CredentialsProblem::NoCertificate));
    }
    Ok(certificates)
}

/// Returns the private key of a text.
pub(super) fn key(source: &Source) -> Result<PKey<Private>, CredentialsError> {
    source.require_pem()?;
    let mut passphrase_requested = false;
    // Without a callback OpenSSL would request a passphrase on the terminal.
    let key = PKey::private_key_from_pem_callback(&source.text, |_| {
        passphrase_requested = true;
        Ok(0)
    });
    match key {
        _ if passphrase_requested => Err(source.error(CredentialsProblem::Encrypted)),
        Ok(key) => Ok(key),
        Err(_) if !source.contains("PRIVATE KEY-----") => Err(source.error(CredentialsProblem::NoKey)),
        Err(error) => Err(source.error(CredentialsProblem::Malformed(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_gives_access_to_another_users_file_exposes_nothing() {
        const READER: u32 = 65_532;
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::at(file.path()).unwrap();
        for (owner, mode, exposed) in [
            (READER, 0o400, false),
            (READER, 0o640, true),
            (READER, 0o604, true),
            (0, 0o440, false),
            (0, 0o640, false),
            (0, 0o444, true),
        ] {
            let stamp = Stamp {
                mode,
                owner,
                ..stamp.clone()
            };
            assert_eq!(stamp.is_exposed_by(READER), exposed, "{owner} {mode:o}");
        }
    }
}
