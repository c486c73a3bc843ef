//! Reads certificates and keys out of PEM texts.

use std::{
    fs, io,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use openssl::{
    pkey::{PKey, Private},
    x509::X509,
};

use super::{CredentialsError, CredentialsFile, CredentialsProblem};

/// The most that is read of a file; a certificate has some 2 KiB.
const FILE_LIMIT: u64 = 1 << 20;

/// Leave to read for group and others.
const READABLE_BY_OTHERS: u32 = 0o044;

/// The text of one of the files.
pub(super) struct Source {
    file: CredentialsFile,
    path: Option<PathBuf>,
    text: Vec<u8>,
    mode: u32,
}

impl Source {
    pub(super) fn text(file: CredentialsFile, text: &[u8]) -> Self {
        Self {
            file,
            path: None,
            text: text.to_owned(),
            mode: 0,
        }
    }

    pub(super) fn readable_by_others(&self) -> bool {
        self.mode & READABLE_BY_OTHERS != 0
    }

    pub(super) fn error(&self, problem: CredentialsProblem) -> CredentialsError {
        CredentialsError::new(self.file, self.path.clone(), problem)
    }

    fn holds(&self, label: &str) -> bool {
        let label = label.as_bytes();
        self.text.windows(label.len()).any(|text| text == label)
    }

    fn require_pem(&self) -> Result<(), CredentialsError> {
        if self.holds("-----BEGIN ") {
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
        mode: 0,
    };
    let read = || -> io::Result<(u32, Vec<u8>)> {
        let opened = fs::File::open(path)?;
        let mode = opened.metadata()?.permissions().mode();
        let mut text = Vec::new();
        opened.take(FILE_LIMIT).read_to_end(&mut text)?;
        Ok((mode, text))
    };
    match read() {
        Ok((mode, text)) => {
            source.mode = mode;
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
    let mut asked = false;
    // Without a callback OpenSSL would ask for a passphrase on the terminal.
    let key = PKey::private_key_from_pem_callback(&source.text, |_| {
        asked = true;
        Ok(0)
    });
    match key {
        _ if asked => Err(source.error(CredentialsProblem::Encrypted)),
        Ok(key) => Ok(key),
        Err(_) if !source.holds("PRIVATE KEY-----") => Err(source.error(CredentialsProblem::NoKey)),
        Err(error) => Err(source.error(CredentialsProblem::Malformed(error))),
    }
}
