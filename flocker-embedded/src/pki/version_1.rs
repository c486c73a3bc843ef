//! Certificates of X.509 version 1 with extensions, which no library creates.
//!
//! OpenSSL creates every certificate with an extension as version 3. The version is one field of the signed part,
//! absent in version 1, so it is removed and the rest signed again.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use openssl::x509::X509;

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
/// The tag of the version field: context-specific, constructed, number 0.
const VERSION: u8 = 0xA0;

/// Returns the same certificate as version 1. `key` is the key of its issuer.
pub(super) fn downgrade(certificate: &X509, key: &PKey<Private>) -> Result<X509, ErrorStack> {
    let der = certificate.to_der()?;
    let (fields, algorithm) = parts(&der).expect("OpenSSL writes certificates as well-formed DER");
    let content = element(SEQUENCE, fields);
    let mut signer = Signer::new(MessageDigest::sha256(), key)?;
    let signature = signer.sign_oneshot_to_vec(&content)?;
    // The first byte of a bit string is the number of unused bits of the last byte.
    let signature = element(BIT_STRING, &[&[0], &*signature].concat());
    X509::from_der(&element(SEQUENCE, &[&*content, algorithm, &*signature].concat()))
}

/// Returns the fields of the signed part after the version, and the algorithm with its header.
fn parts(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, certificate, _) = split(der)?;
    let (_, signed, rest) = split(certificate)?;
    let (_, _, signature) = split(rest)?;
    let algorithm = rest.get(..rest.len() - signature.len())?;
    let (tag, _, fields) = split(signed)?;
    (tag == VERSION).then_some((fields, algorithm))
}

/// Splits off the first element: its tag, its content, and what follows it.
fn split(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first.checked_sub(0x80) {
        None => (usize::from(*first), rest),
        // The lower bits are the number of bytes of the length.
        Some(bytes) => {
            let (digits, rest) = rest.split_at_checked(usize::from(bytes))?;
            (
                digits
                    .iter()
                    .fold(0, |length, digit| (length << 8) | usize::from(*digit)),
                rest,
            )
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits: Vec<u8> = length.into_iter().skip_while(|digit| *digit == 0).collect();
    let mut header = vec![tag];
    match (digits.as_slice(), u8::try_from(digits.len())) {
        ([], _) => header.push(0),
        ([short @ ..0x80], _) => header.push(*short),
        (_, Ok(count)) => {
            header.push(0x80 | count);
            header.extend(digits);
        }
        (_, Err(_)) => unreachable!("a length has at most as many bytes as a machine word"),
    }
    [header.as_slice(), content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_length_are_split_as_they_were_put_together() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let mut der = element(SEQUENCE, &content);
            der.push(9);
            assert_eq!(
                split(&der),
                Some((SEQUENCE, content.as_slice(), &[9][..])),
                "{length}"
            );
        }
    }

    #[test]
    fn what_is_cut_short_is_not_an_element() {
        let der = element(SEQUENCE, &[7; 300]);
        for length in 0..der.len() {
            assert_eq!(split(&der[..length]), None);
        }
    }
}
