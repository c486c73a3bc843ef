//! The user's certificate and key, and the cluster's certificate.

mod check;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod read;

pub use self::error::{CredentialsError, CredentialsFile, CredentialsProblem};

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    error::ErrorStack,
    pkey::{PKey, Private},
    x509::X509,
};

use reqwest::{Certificate, Identity};

use crate::{Error, error::Cause};

/// A user's certificate and key, and the certificate of the cluster's authority.
///
/// The certificates may be of X.509 version 1, as `flocker-ca` makes them, or 3. The key may be in PKCS#8,
/// PKCS#1 or SEC1 form, without a passphrase. Clones share their contents.
#[derive(Clone)]
pub struct Credentials {
    contents: Arc<Contents>,
}

struct Contents {
    authorities: Vec<X509>,
    /// The user's certificate, followed by the intermediate ones, if any.
    chain: Vec<X509>,
    key: PKey<Private>,
    common_name: String,
    key_readable_by_others: bool,
    /// The three files in the order of [`Credentials::load`], unless the contents came as texts.
    origins: Option<[(PathBuf, read::Stamp); 3]>,
}

impl Credentials {
    /// Reads the three files and checks that they are PEM, belong together and are valid now.
    ///
    /// Blocks while it reads and computes.
    ///
    /// # Errors
    ///
    /// The first problem, with the file it is in.
    pub fn load(cluster_cert: &Path, user_cert: &Path, user_key: &Path) -> Result<Self, CredentialsError> {
        let cluster = read::file(CredentialsFile::ClusterCertificate, cluster_cert)?;
        let user = read::file(CredentialsFile::UserCertificate, user_cert)?;
        let key = read::file(CredentialsFile::UserKey, user_key)?;
        Self::checked(&cluster, &user, &key)?.valid_now()
    }

    /// As [`Self::load`], but accepts certificates that have expired or are not valid yet: see [`Self::out_of_date`].
    ///
    /// # Errors
    ///
    /// The first other problem, with the file it is in.
    pub fn load_for_any_time(
        cluster_cert: &Path,
        user_cert: &Path,
        user_key: &Path,
    ) -> Result<Self, CredentialsError> {
        let cluster = read::file(CredentialsFile::ClusterCertificate, cluster_cert)?;
        let user = read::file(CredentialsFile::UserCertificate, user_cert)?;
        let key = read::file(CredentialsFile::UserKey, user_key)?;
        Self::checked(&cluster, &user, &key)
    }

    /// Returns which certificate is outside its validity at a moment, if one is.
    pub fn out_of_date(&self, now: SystemTime) -> Option<CredentialsError> {
        let Contents {
            authorities, chain, ..
        } = &*self.contents;
        let (file, problem) = check::signature(authorities, chain, Some(now)).err()?;
        let origins = self.contents.origins.as_ref();
        let path = origins.map(|[cluster, user, key]| match file {
            CredentialsFile::ClusterCertificate => cluster.0.clone(),
            CredentialsFile::UserCertificate => user.0.clone(),
            CredentialsFile::UserKey => key.0.clone(),
        });
        Some(CredentialsError::new(file, path, problem))
    }

    fn valid_now(self) -> Result<Self, CredentialsError> {
        match self.out_of_date(SystemTime::now()) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    /// Returns whether any of the files has been replaced or written to since they were loaded.
    ///
    /// Blocks while it examines them. False for credentials that came as texts.
    pub fn changed_on_disk(&self) -> bool {
        let mut origins = self.contents.origins.iter().flatten();
        origins.any(|(path, seen)| read::Stamp::at(path).as_ref() != Some(seen))
    }

    /// Loads the same files again, for any time; credentials that came as texts stay as they are.
    ///
    /// # Errors
    ///
    /// As [`Self::load_for_any_time`]. Also when the files are being replaced one by one and do not belong together yet.
    pub fn load_again(&self) -> Result<Self, CredentialsError> {
        match &self.contents.origins {
            Some([(cluster, _), (user, _), (key, _)]) => Self::load_for_any_time(cluster, user, key),
            None => Ok(self.clone()),
        }
    }

    /// Returns whether the certificates, and with them the key, are the same, even if they came from other files.
    pub fn same_as(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.contents, &other.contents);
        ours.chain == theirs.chain && ours.authorities == theirs.authorities
    }

    /// As [`Self::load`], from PEM texts.
    ///
    /// # Errors
    ///
    /// The first problem, without a file name.
    pub fn from_pem(
        cluster_cert: &[u8],
        user_cert: &[u8],
        user_key: &[u8],
    ) -> Result<Self, CredentialsError> {
        Self::checked(
            &read::Source::text(CredentialsFile::ClusterCertificate, cluster_cert),
            &read::Source::text(CredentialsFile::UserCertificate, user_cert),
            &read::Source::text(CredentialsFile::UserKey, user_key),
        )?
        .valid_now()
    }

    fn checked(
        cluster: &read::Source,
        user: &read::Source,
        key_source: &read::Source,
    ) -> Result<Self, CredentialsError> {
        let authorities = read::certificates(cluster)?;
        let chain = read::certificates(user)?;
        let key = read::key(key_source)?;
        let common_name = check::user(&chain).map_err(|problem| user.error(problem))?;
        check::signature(&authorities, &chain, None).map_err(|(file, problem)| match file {
            CredentialsFile::ClusterCertificate => cluster.error(problem),
            CredentialsFile::UserCertificate | CredentialsFile::UserKey => user.error(problem),
        })?;
        check::key(&chain, &key).map_err(|problem| key_source.error(problem))?;
        check::usable(&chain, &key).map_err(|problem| user.error(problem))?;
        Ok(Self {
            contents: Arc::new(Contents {
                authorities,
                chain,
                key,
                common_name,
                key_readable_by_others: key_source.readable_by_others(),
                origins: match (cluster.origin(), user.origin(), key_source.origin()) {
                    (Some(cluster), Some(user), Some(key)) => Some([cluster, user, key]),
                    _ => None,
                },
            }),
        })
    }

    /// Returns the user's name: the common name without its prefix `user-`.
    pub fn user(&self) -> &str {
        self.contents
            .common_name
            .strip_prefix(check::USER)
            .unwrap_or(&self.contents.common_name)
    }

    /// Returns the moment at which the first of the certificates expires.
    pub fn not_after(&self) -> SystemTime {
        self.user_not_after().min(self.cluster_not_after())
    }

    /// Returns the moment at which the user's certificate, or one that it needs, expires.
    pub fn user_not_after(&self) -> SystemTime {
        first_end(&self.contents.chain)
    }

    /// Returns the moment at which the cluster's certificate expires; of several, the first one.
    pub fn cluster_not_after(&self) -> SystemTime {
        first_end(&self.contents.authorities)
    }

    /// Returns the number of whole days from `now` until [`Self::not_after`]; negative once they have expired.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        const DAY: u64 = 86_400;
        let days = |time: Duration| i64::try_from(time.as_secs() / DAY).unwrap_or(i64::MAX);
        match self.not_after().duration_since(now) {
            Ok(left) => days(left),
            Err(over) => -1 - days(over.duration()),
        }
    }

    /// Returns whether the mode of the key's file let other users read it when it was loaded: every user or, if the
    /// file belongs to the user of this process, the group.
    pub fn key_readable_by_others(&self) -> bool {
        self.contents.key_readable_by_others
    }

    /// Returns the authorities to trust, for the HTTP library.
    pub(crate) fn authorities(&self) -> Result<Vec<Certificate>, Error> {
        let convert = |authority: &X509| {
            Certificate::from_der(&authority.to_der().map_err(unusable)?).map_err(unusable)
        };
        self.contents.authorities.iter().map(convert).collect()
    }

    /// Returns certificate and key, for the HTTP library: PEM, the key as PKCS#8.
    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        let mut chain = Vec::new();
        for certificate in &self.contents.chain {
            chain.extend(certificate.to_pem().map_err(unusable)?);
        }
        let key = self.contents.key.private_key_to_pem_pkcs8().map_err(unusable)?;
        Identity::from_pkcs8_pem(&chain, &key).map_err(unusable)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("common_name", &self.contents.common_name)
            .finish_non_exhaustive()
    }
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Invalid {
        problem: "the certificates and the key cannot be used for TLS".to_owned(),
        source: Some(Cause::new(error)),
    }
}

/// Returns the first moment at which one of the certificates expires.
fn first_end(certificates: &[X509]) -> SystemTime {
    let ends = certificates
        .iter()
        .map(|certificate| moment(certificate.not_after()));
    ends.filter_map(Result::ok)
        .min()
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn moment(time: &Asn1TimeRef) -> Result<SystemTime, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    let seconds = i64::from(since.days) * 86_400 + i64::from(since.secs);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
