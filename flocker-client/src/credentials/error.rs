use std::{error::Error as StdError, fmt, io, path::PathBuf};

use openssl::error::ErrorStack;

/// One of the three files of the credentials cannot be used.
#[derive(Debug)]
pub struct CredentialsError {
    file: CredentialsFile,
    path: Option<PathBuf>,
    problem: CredentialsProblem,
}

impl CredentialsError {
    pub(super) fn new(file: CredentialsFile, path: Option<PathBuf>, problem: CredentialsProblem) -> Self {
        Self { file, path, problem }
    }

    /// Returns the file.
    pub fn file(&self) -> CredentialsFile {
        self.file
    }

    /// Returns what is wrong with it.
    pub fn problem(&self) -> &CredentialsProblem {
        &self.problem
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {}", self.file)?;
        if let Some(path) = &self.path {
            write!(f, " {}", path.display())?;
        }
        write!(f, " {}", self.problem)
    }
}

impl StdError for CredentialsError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.problem.source()
    }
}

/// One of the three files that make up the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsFile {
    /// The certificate of the cluster's authority, `cluster.crt`.
    ClusterCertificate,
    /// The certificate of a user of the API, such as `plugin.crt`.
    UserCertificate,
    /// The private key to that certificate, such as `plugin.key`.
    UserKey,
}

impl fmt::Display for CredentialsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterCertificate => "cluster certificate",
            Self::UserCertificate => "user certificate",
            Self::UserKey => "user key",
        })
    }
}

/// What is wrong with a file of the credentials, as the end of a sentence about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsProblem {
    /// The file does not exist.
    #[error("does not exist")]
    Missing,
    /// The file cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
    /// The file is not in PEM form.
    #[error("is not in PEM form (text with a line `-----BEGIN ...-----`)")]
    NotPem,
    /// The file is PEM, but contains no certificate.
    #[error("contains no certificate")]
    NoCertificate,
    /// The file is PEM, but contains no private key.
    #[error("contains no private key")]
    NoKey,
    /// The contents of the file are damaged.
    #[error("is damaged")]
    Malformed(#[source] ErrorStack),
    /// The key is protected by a passphrase.
    #[error(
        "is encrypted, but a passphrase cannot be entered; \
         `openssl pkey -in KEY -out PLAIN` removes it"
    )]
    Encrypted,
    /// The key does not belong to the certificate.
    #[error("does not belong to the user certificate")]
    OtherKey,
    /// The certificate has expired.
    #[error("expired on {since}")]
    #[non_exhaustive]
    Expired {
        /// The last moment of its validity.
        since: String,
    },
    /// The certificate is not valid yet.
    #[error("is not valid before {from}; is the clock of this machine right?")]
    #[non_exhaustive]
    NotYetValid {
        /// The first moment of its validity.
        from: String,
    },
    /// The certificate is not a user's: its common name does not start with `user-`.
    #[error(
        "is {}, but the REST API takes user certificates only (common name `user-NAME`); \
         `flocker-ca create-api-certificate NAME` makes one",
        owner(common_name)
    )]
    #[non_exhaustive]
    NotUser {
        /// Its common name.
        common_name: String,
    },
    /// The certificate is not signed by the authority of the cluster certificate.
    #[error(
        "is not signed by the cluster certificate `{authority}`: \
         they belong to different clusters ({verdict})"
    )]
    #[non_exhaustive]
    OtherAuthority {
        /// The common name in the cluster certificate, which is the cluster's name.
        authority: String,
        /// The reason that OpenSSL gives.
        verdict: String,
    },
    /// OpenSSL refuses to use the certificate, for instance because its key is too short.
    #[error("is refused by OpenSSL")]
    Unusable(#[source] ErrorStack),
}

/// Describes the certificate by its common name.
fn owner(common_name: &str) -> String {
    match common_name {
        "" => "without a common name".to_owned(),
        "control-service" => "the control service's own certificate".to_owned(),
        node if node.starts_with("node-") => format!("a node's certificate (`{node}`)"),
        other => format!("of `{other}`"),
    }
}
