//! Certificates with any contents.

use super::{CredentialsError, CredentialsFile, check, moment, read};

/// Reads bytes as the text of a user's certificate, and as the certificate itself.
///
/// # Panics
/// If the error has more than one line.
pub fn certificate(bytes: &[u8]) {
    let encoded = openssl::base64::encode_block(bytes);
    let text = format!("-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n");
    for text in [bytes, text.as_bytes()] {
        if let Err(error) = examine(&read::Source::text(CredentialsFile::UserCertificate, text)) {
            assert!(!error.to_string().contains(char::is_control), "{error}");
        }
    }
}

fn examine(source: &read::Source) -> Result<(), CredentialsError> {
    let chain = read::certificates(source)?;
    for certificate in &chain {
        drop(moment(certificate.not_after()));
    }
    check::user(&chain).map_err(|problem| source.error(problem))?;
    check::signature(&chain, &chain, Some(std::time::SystemTime::now()))
        .map_err(|(_, problem)| source.error(problem))
}
