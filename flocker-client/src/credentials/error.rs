use std::{error::Error as StdError, fmt, io, path::PathBuf};

use openssl::error::ErrorStack;

/// Says which of the three files of the credentials cannot be used, and why.
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

    /// Returns which of the files it is.
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
pub enum CredentialsProblem {
    /// There is no such file.
    #[error("does not exist")]
    Missing,
    /// The file cannot be read.
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
    /// The file is no PEM text.
    #[error("is not in PEM form (text with a line `-----BEGIN ...-----`)")]
    NotPem,
    /// The file is PEM, but without a certificate.
    #[error("holds no certificate")]
    NoCertificate,
    /// The file is PEM, but without a private key.
    #[error("holds no private key")]
    NoKey,
    /// What the file holds is damaged.
    #[error("is damaged")]
    Malformed(#[source] ErrorStack),
    /// The key is protected by a passphrase.
    #[error(
        "is encrypted, and nobody is there to type the passphrase; \
         `openssl pkey -in KEY -out PLAIN` removes it"
    )]
    Encrypted,
    /// The key is not the one to the certificate.
    #[error("does not belong to the user certificate")]
    OtherKey,
    /// The certificate has expired.
    #[error("expired on {since}")]
    Expired {
        /// The last moment of its validity.
        since: String,
    },
    /// The certificate is not valid yet.
    #[error("is not valid before {from}; is the clock of this machine right?")]
    NotYetValid {
        /// The first moment of its validity.
        from: String,
    },
    /// The certificate is not a user's: its common name does not start with `user-`.
    #[error(
        "is {}, but the REST API takes user certificates only (common name `user-NAME`); \
         `flocker-ca create-api-certificate NAME` makes one",
        whose(common_name)
    )]
    NotUser {
        /// The common name it has.
        common_name: String,
    },
    /// The certificate is not signed by the authority of the cluster certificate.
    #[error(
        "is not signed by the cluster certificate `{authority}`: \
         they belong to different clusters ({verdict})"
    )]
    OtherAuthority {
        /// The common name in the cluster certificate, which is the cluster's name.
        authority: String,
        /// What OpenSSL says.
        verdict: String,
    },
    /// OpenSSL refuses to use the certificate, for instance because its key is too short.
    #[error("is refused by OpenSSL")]
    Unusable(#[source] ErrorStack),
}

/// Says whose certificate it is that has this common name.
fn whose(common_name: &str) -> String {
    match common_name {
        "" => "without a common name".to_owned(),
        "control-service" => "the control service's own certificate".to_owned(),
        node if node.starts_with("node-") => format!("a node's certificate (`{node}`)"),
        other => format!("made out to `{other}`"),
    }
}
