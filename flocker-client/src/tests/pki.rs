//! Certificates like those of `flocker-ca`, of X.509 version 1 with extensions, and proper ones of version 3.

use std::sync::LazyLock;

use openssl::{
    asn1::Asn1Time,
    bn::{BigNum, MsbOption},
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    rsa::Rsa,
    sign::Signer,
    x509::{
        X509, X509Builder, X509Name,
        extension::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName},
    },
};

use crate::Credentials;

/// The version of the certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    V1,
    V3,
}

/// One key for all certificates but those of the authorities: generating keys is slow.
static LEAF_KEY: LazyLock<PKey<Private>> = LazyLock::new(rsa_key);

/// A cluster of each profile, and one whose authority no other trusts.
pub(crate) static V1: LazyLock<Authority> = LazyLock::new(|| Authority::new("first", Profile::V1));
pub(crate) static V3: LazyLock<Authority> = LazyLock::new(|| Authority::new("first", Profile::V3));
pub(crate) static OTHER: LazyLock<Authority> = LazyLock::new(|| Authority::new("other", Profile::V3));

/// The authority of a cluster.
pub(crate) struct Authority {
    pub(crate) certificate: X509,
    key: PKey<Private>,
    profile: Profile,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: X509,
    pub(crate) key: PKey<Private>,
}

/// The contents of a certificate to issue.
pub(crate) struct CertificateRequest<'a> {
    pub(crate) common_name: &'a str,
    /// First and last second of the validity, counted from the present.
    pub(crate) valid: (i64, i64),
    pub(crate) key: PKey<Private>,
}

const DAY: i64 = 86_400;

impl<'a> CertificateRequest<'a> {
    pub(crate) fn for_name(common_name: &'a str) -> Self {
        Self {
            common_name,
            valid: (-DAY, 365 * DAY),
            key: LEAF_KEY.clone(),
        }
    }

    pub(crate) fn expired(common_name: &'a str) -> Self {
        Self {
            valid: (-2 * DAY, -DAY),
            ..Self::for_name(common_name)
        }
    }

    pub(crate) fn premature(common_name: &'a str) -> Self {
        Self {
            valid: (DAY, 2 * DAY),
            ..Self::for_name(common_name)
        }
    }
}

impl Authority {
    fn new(cluster: &str, profile: Profile) -> Self {
        Self::made(
            &CertificateRequest {
                key: rsa_key(),
                ..CertificateRequest::for_name(cluster)
            },
            profile,
        )
    }

    /// Makes an authority that is valid from the first to the second of these seconds, counted from the
    /// present.
    pub(crate) fn valid(cluster: &str, valid: (i64, i64)) -> Self {
        Self::made(
            &CertificateRequest {
                key: rsa_key(),
                valid,
                ..CertificateRequest::for_name(cluster)
            },
            Profile::V1,
        )
    }

    fn made(request: &CertificateRequest<'_>, profile: Profile) -> Self {
        let mut builder = builder(request);
        builder.set_issuer_name(&name(request.common_name)).unwrap();
        let constraints = BasicConstraints::new()
            .critical()
            .ca()
            .pathlen(0)
            .build()
            .unwrap();
        builder.append_extension(constraints).unwrap();
        let usage = KeyUsage::new()
            .critical()
            .key_cert_sign()
            .crl_sign()
            .build()
            .unwrap();
        builder.append_extension(usage).unwrap();
        Self {
            certificate: signed(builder, &request.key, profile),
            key: request.key.clone(),
            profile,
        }
    }

    /// Issues a certificate: the extensions follow from the common name, as they do in `flocker-ca`.
    pub(crate) fn issue(&self, request: &CertificateRequest<'_>) -> Issued {
        let mut builder = builder(request);
        builder.set_issuer_name(self.certificate.subject_name()).unwrap();
        if request.common_name == "control-service" {
            let names = SubjectAlternativeName::new()
                .dns("control-service")
                .dns("flocker.example")
                .build(&builder.x509v3_context(Some(&self.certificate), None))
                .unwrap();
            builder.append_extension(names).unwrap();
        } else if request.common_name.starts_with("user-") {
            builder
                .append_extension(ExtendedKeyUsage::new().client_auth().build().unwrap())
                .unwrap();
        }
        Issued {
            certificate: signed(builder, &self.key, self.profile),
            key: request.key.clone(),
        }
    }

    pub(crate) fn control(&self) -> Issued {
        self.issue(&CertificateRequest::for_name("control-service"))
    }

    pub(crate) fn user(&self) -> Issued {
        self.issue(&CertificateRequest::for_name("user-plugin"))
    }

    pub(crate) fn credentials(&self) -> Credentials {
        let user = self.user();
        Credentials::from_pem(&self.pem(), &user.pem(), &user.key_pem()).unwrap()
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }
}

impl Issued {
    pub(crate) fn pem(&self) -> Vec<u8> {
        self.certificate.to_pem().unwrap()
    }

    pub(crate) fn key_pem(&self) -> Vec<u8> {
        self.key.private_key_to_pem_pkcs8().unwrap()
    }
}

pub(crate) fn rsa_key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

pub(crate) fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

fn name(common_name: &str) -> X509Name {
    let mut name = X509Name::builder().unwrap();
    name.append_entry_by_nid(
        Nid::ORGANIZATIONALUNITNAME,
        "8b1c0a5e-0a4f-4d63-8a43-5a4a30c3a1d4",
    )
    .unwrap();
    name.append_entry_by_nid(Nid::COMMONNAME, common_name).unwrap();
    name.build()
}

fn builder(request: &CertificateRequest<'_>) -> X509Builder {
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, MsbOption::MAYBE_ZERO, false).unwrap();
    builder
        .set_serial_number(&serial.to_asn1_integer().unwrap())
        .unwrap();
    builder.set_subject_name(&name(request.common_name)).unwrap();
    builder.set_pubkey(&request.key).unwrap();
    let now = Asn1Time::from_unix(0)
        .unwrap()
        .diff(&Asn1Time::days_from_now(0).unwrap())
        .unwrap();
    let now = i64::from(now.days) * DAY + i64::from(now.secs);
    builder
        .set_not_before(&Asn1Time::from_unix(now + request.valid.0).unwrap())
        .unwrap();
    builder
        .set_not_after(&Asn1Time::from_unix(now + request.valid.1).unwrap())
        .unwrap();
    builder
}

fn signed(mut builder: X509Builder, key: &PKey<Private>, profile: Profile) -> X509 {
    builder.sign(key, MessageDigest::sha256()).unwrap();
    let certificate = builder.build();
    match profile {
        Profile::V1 => as_version_1(&certificate, key),
        Profile::V3 => certificate,
    }
}

/// Removes the version from a certificate and signs it again: OpenSSL itself writes version 3 for a certificate with
/// extensions.
fn as_version_1(certificate: &X509, key: &PKey<Private>) -> X509 {
    let der = certificate.to_der().unwrap();
    let (whole, _) = element(&der);
    let (tbs, after_tbs) = element(contents(whole));
    let (algorithm, _) = element(after_tbs);
    let (version, fields) = element(contents(tbs));
    assert_eq!(version, [0xa0, 3, 2, 1, 2], "the first field is the version");
    let tbs = wrapped(0x30, &[fields]);
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    let signature = signer.sign_oneshot_to_vec(&tbs).unwrap();
    let signature = wrapped(0x03, &[&[0], &signature]);
    X509::from_der(&wrapped(0x30, &[&tbs, algorithm, &signature])).unwrap()
}

/// Returns the first DER element and what follows it.
fn element(der: &[u8]) -> (&[u8], &[u8]) {
    let (header, length) = header(der);
    der.split_at(header + length)
}

fn contents(element: &[u8]) -> &[u8] {
    &element[header(element).0..]
}

fn header(der: &[u8]) -> (usize, usize) {
    let short = usize::from(der[1]);
    if short < 0x80 {
        return (2, short);
    }
    let bytes = &der[2..2 + (short & 0x7f)];
    (
        2 + bytes.len(),
        bytes
            .iter()
            .fold(0, |length, byte| length << 8 | usize::from(*byte)),
    )
}

fn wrapped(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let contents = parts.concat();
    let length = contents.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut element = vec![tag];
    if contents.len() >= 0x80 {
        element.push(0x80 | u8::try_from(length.len()).unwrap());
    }
    element.extend_from_slice(length);
    element.extend(contents);
    element
}

#[test]
fn the_profiles_have_the_versions_they_are_named_after() {
    for (authority, version) in [(&*V1, 0), (&*V3, 2)] {
        for certificate in [
            &authority.certificate,
            &authority.control().certificate,
            &authority.user().certificate,
        ] {
            assert_eq!(certificate.version(), version);
            assert!(
                certificate
                    .verify(&authority.certificate.public_key().unwrap())
                    .unwrap()
            );
        }
        assert!(authority.control().certificate.subject_alt_names().is_some());
    }
}
