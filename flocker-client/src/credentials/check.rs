//! Checks that certificates and key belong together, are valid now, and are what the REST API accepts.

use std::time::SystemTime;

use openssl::{
    error::ErrorStack,
    nid::Nid,
    pkey::{PKey, Private},
    ssl::{SslContext, SslMethod},
    stack::Stack,
    x509::{
        X509, X509Ref, X509StoreContext,
        store::X509StoreBuilder,
        verify::{X509VerifyFlags, X509VerifyParam},
    },
};

use super::{CredentialsFile, CredentialsProblem};
use crate::error::one_line;

/// The prefix of the common name in a user's certificate.
pub(super) const USER: &str = "user-";

/// The maximum length of a name in a message, which is the maximum of X.509.
const NAME_LIMIT: usize = 64;

/// OpenSSL's numbers for a certificate that is not valid yet, and for one that has expired.
const NOT_YET_VALID: i32 = 9;
const HAS_EXPIRED: i32 = 10;

/// Requires a user's certificate and returns its common name.
pub(super) fn user(chain: &[X509]) -> Result<String, CredentialsProblem> {
    let common_name = chain
        .first()
        .map(|certificate| common_name(certificate))
        .unwrap_or_default();
    if common_name.len() > USER.len() && common_name.starts_with(USER) {
        Ok(common_name)
    } else {
        Err(CredentialsProblem::NotUser {
            common_name: printable(&common_name),
        })
    }
}

/// Requires the user's certificate to be signed by one of the authorities, directly or not, and all to be valid at
/// `moment`, if one is given.
pub(super) fn signature(
    authorities: &[X509],
    chain: &[X509],
    moment: Option<SystemTime>,
) -> Result<(), (CredentialsFile, CredentialsProblem)> {
    let verdict = verify(authorities, chain, moment).map_err(|error| {
        (
            CredentialsFile::UserCertificate,
            CredentialsProblem::Malformed(error),
        )
    })?;
    let Some(verdict) = verdict else { return Ok(()) };
    let file = if verdict.depth == 0 {
        CredentialsFile::UserCertificate
    } else {
        CredentialsFile::ClusterCertificate
    };
    Err(match verdict.code {
        HAS_EXPIRED => (
            file,
            CredentialsProblem::Expired {
                since: verdict.not_after,
            },
        ),
        NOT_YET_VALID => (
            file,
            CredentialsProblem::NotYetValid {
                from: verdict.not_before,
            },
        ),
        _ => (
            CredentialsFile::UserCertificate,
            CredentialsProblem::OtherAuthority {
                authority: authorities
                    .first()
                    .map(|authority| printable(&common_name(authority)))
                    .unwrap_or_default(),
                verdict: verdict.text,
            },
        ),
    })
}

/// Requires the key to belong to the user's certificate.
pub(super) fn key(chain: &[X509], key: &PKey<Private>) -> Result<(), CredentialsProblem> {
    let public = chain
        .first()
        .and_then(|certificate| certificate.public_key().ok());
    if public.is_some_and(|public| public.public_eq(key)) {
        Ok(())
    } else {
        Err(CredentialsProblem::OtherKey)
    }
}

/// Requires OpenSSL to accept certificate and key for TLS.
pub(super) fn usable(chain: &[X509], key: &PKey<Private>) -> Result<(), CredentialsProblem> {
    let accept = || {
        let mut context = SslContext::builder(SslMethod::tls_client())?;
        for certificate in chain.iter().take(1) {
            context.set_certificate(certificate)?;
        }
        context.set_private_key(key)
    };
    accept().map_err(CredentialsProblem::Unusable)
}

/// What OpenSSL found wrong with a chain of certificates, and with which of them.
struct Verdict {
    code: i32,
    text: String,
    depth: u32,
    not_before: String,
    not_after: String,
}

fn verify(
    authorities: &[X509],
    chain: &[X509],
    moment: Option<SystemTime>,
) -> Result<Option<Verdict>, ErrorStack> {
    let mut store = X509StoreBuilder::new()?;
    let mut parameters = X509VerifyParam::new()?;
    match moment {
        Some(moment) => parameters.set_time(seconds(moment)),
        None => parameters.set_flags(X509VerifyFlags::NO_CHECK_TIME)?,
    }
    store.set_param(&parameters)?;
    for authority in authorities {
        store.add_cert(authority.clone())?;
    }
    let mut intermediates = Stack::new()?;
    for certificate in chain.iter().skip(1) {
        intermediates.push(certificate.clone())?;
    }
    let Some(leaf) = chain.first() else {
        return Ok(None);
    };
    X509StoreContext::new()?.init(&store.build(), leaf, &intermediates, |context| {
        if context.verify_cert()? {
            return Ok(None);
        }
        let dates = context.current_cert().map(|certificate| {
            (
                certificate.not_before().to_string(),
                certificate.not_after().to_string(),
            )
        });
        let (not_before, not_after) = dates.unwrap_or_default();
        Ok(Some(Verdict {
            code: context.error().as_raw(),
            text: context.error().error_string().to_owned(),
            depth: context.error_depth(),
            not_before,
            not_after,
        }))
    })
}

/// Returns the seconds since 1970; an earlier moment counts as 1970.
fn seconds(moment: SystemTime) -> i64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn common_name(certificate: &X509Ref) -> String {
    let name = certificate.subject_name().entries_by_nid(Nid::COMMONNAME).next();
    name.and_then(|name| name.data().to_string().ok())
        .unwrap_or_default()
}

/// Returns a name, which may contain any characters, as one line for a message.
fn printable(common_name: &str) -> String {
    one_line(common_name, NAME_LIMIT)
}
