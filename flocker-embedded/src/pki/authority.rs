//! The authority: its key, and the certificates it signs.

use std::net::IpAddr;
use std::ops::Range;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName,
    SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509Name, X509NameBuilder};
use uuid::Uuid;

use super::version_1;
use crate::options::CertificateProfile;

/// The common name of every certificate of a control service, on any host.
pub const CONTROL_SERVICE: &str = "control-service";

const CLUSTER_NAME: &str = "flocker-embedded";
const KEY_BITS: u32 = 2048;
const SERIAL_BITS: i32 = 128;
const SECONDS_A_DAY: i64 = 86_400;
/// The default validity of a certificate, in days counted from now.
///
/// It begins a day ago: the clock of the verifier may lag behind that of the issuer.
pub(super) const TWENTY_YEARS: Range<i64> = -1..20 * 365;

/// The subject of a certificate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Role {
    /// The control service, with its fixed name and these addresses.
    ControlService(Vec<IpAddr>),
    /// The agent of a node; the REST API refuses it.
    Node(Uuid),
    /// A client of the REST API, by this name.
    User(String),
}

impl Role {
    fn common_name(&self) -> String {
        match self {
            Self::ControlService(_) => CONTROL_SERVICE.to_owned(),
            Self::Node(uuid) => format!("node-{uuid}"),
            Self::User(name) => format!("user-{name}"),
        }
    }
}

/// A private key and its certificate.
#[derive(Clone)]
pub struct Identity {
    pub(super) certificate: X509,
    pub(super) key: PKey<Private>,
}

impl Identity {
    /// Returns the certificate.
    pub fn certificate(&self) -> &X509 {
        &self.certificate
    }

    /// Returns the private key.
    pub fn key(&self) -> &PKey<Private> {
        &self.key
    }

    /// Returns the certificate as PEM.
    pub fn certificate_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.certificate.to_pem()
    }

    /// Returns the private key as PEM, in PKCS#8 as Flocker's authority writes it.
    pub fn key_pem(&self) -> Result<Vec<u8>, ErrorStack> {
        self.key.private_key_to_pem_pkcs8()
    }
}

/// A certificate authority. All certificates of one cluster contain the cluster's UUID.
pub struct Authority {
    pub(super) identity: Identity,
    pub(super) cluster: Uuid,
    pub(super) profile: CertificateProfile,
}

impl Authority {
    /// Creates an authority with a new key. Takes as long as generating an RSA key does.
    pub fn new(cluster: Uuid, profile: CertificateProfile) -> Result<Self, ErrorStack> {
        let key = new_key()?;
        let certificate = certify_itself(cluster, &key, profile, &TWENTY_YEARS)?;
        Ok(Self {
            identity: Identity { certificate, key },
            cluster,
            profile,
        })
    }

    /// Returns the authority's own certificate once more, valid for a range of days counted from now.
    pub fn own_for(&self, days: &Range<i64>) -> Result<X509, ErrorStack> {
        certify_itself(self.cluster, &self.identity.key, self.profile, days)
    }

    /// Returns the authority's own certificate.
    pub fn certificate(&self) -> &X509 {
        self.identity.certificate()
    }

    /// Issues a certificate with a new key, valid for twenty years.
    pub fn issue(&self, role: &Role) -> Result<Identity, ErrorStack> {
        self.issue_for(role, &TWENTY_YEARS)
    }

    /// Issues a certificate with a new key, valid for a range of days counted from now: `-2..-1` has expired.
    pub fn issue_for(&self, role: &Role, days: &Range<i64>) -> Result<Identity, ErrorStack> {
        let key = new_key()?;
        let certificate = self.certify(role, &key, days)?;
        Ok(Identity { certificate, key })
    }

    pub(super) fn certify(
        &self,
        role: &Role,
        key: &PKey<Private>,
        days: &Range<i64>,
    ) -> Result<X509, ErrorStack> {
        let subject = name(&role.common_name(), self.cluster)?;
        let mut builder = builder(&subject, self.certificate().subject_name(), key, days)?;
        match role {
            Role::ControlService(addresses) => {
                let mut names = SubjectAlternativeName::new();
                names.dns(CONTROL_SERVICE);
                for address in addresses {
                    names.ip(&address.to_string());
                }
                let names = names.build(&builder.x509v3_context(Some(self.certificate()), None))?;
                builder.append_extension(names)?;
            }
            Role::User(_) => builder.append_extension(ExtendedKeyUsage::new().client_auth().build()?)?,
            Role::Node(_) => {}
        }
        sign(builder, &self.identity.key, self.profile)
    }
}

fn certify_itself(
    cluster: Uuid,
    key: &PKey<Private>,
    profile: CertificateProfile,
    days: &Range<i64>,
) -> Result<X509, ErrorStack> {
    let name = name(CLUSTER_NAME, cluster)?;
    let mut builder = builder(&name, &name, key, days)?;
    builder.append_extension(BasicConstraints::new().critical().ca().pathlen(0).build()?)?;
    builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
    let subject_key = SubjectKeyIdentifier::new().build(&builder.x509v3_context(None, None))?;
    builder.append_extension(subject_key)?;
    let authority_key = AuthorityKeyIdentifier::new()
        .keyid(true)
        .build(&builder.x509v3_context(None, None))?;
    builder.append_extension(authority_key)?;
    sign(builder, key, profile)
}

pub(super) fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_rsa(Rsa::generate(KEY_BITS)?)
}

fn name(common_name: &str, cluster: Uuid) -> Result<X509Name, ErrorStack> {
    let mut builder = X509NameBuilder::new()?;
    builder.append_entry_by_text("OU", &cluster.to_string())?;
    builder.append_entry_by_text("CN", common_name)?;
    Ok(builder.build())
}

fn builder(
    subject: &X509Name,
    issuer: &openssl::x509::X509NameRef,
    key: &PKey<Private>,
    days: &Range<i64>,
) -> Result<X509Builder, ErrorStack> {
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
    let mut builder = X509Builder::new()?;
    // OpenSSL counts versions from 0.
    builder.set_version(2)?;
    builder.set_serial_number(serial.to_asn1_integer()?.as_ref())?;
    builder.set_subject_name(subject)?;
    builder.set_issuer_name(issuer)?;
    builder.set_pubkey(key)?;
    builder.set_not_before(day(days.start)?.as_ref())?;
    builder.set_not_after(day(days.end)?.as_ref())?;
    Ok(builder)
}

fn sign(
    mut builder: X509Builder,
    key: &PKey<Private>,
    profile: CertificateProfile,
) -> Result<X509, ErrorStack> {
    builder.sign(key, MessageDigest::sha256())?;
    let certificate = builder.build();
    match profile {
        CertificateProfile::V1 => version_1::downgrade(&certificate, key),
        CertificateProfile::V3 => Ok(certificate),
    }
}

fn day(day: i64) -> Result<Asn1Time, ErrorStack> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Asn1Time::from_unix(now.cast_signed() + day * SECONDS_A_DAY)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use openssl::nid::Nid;
    use openssl::stack::Stack;
    use openssl::x509::store::X509StoreBuilder;
    use openssl::x509::{X509StoreContext, X509VerifyResult};

    use super::*;

    fn common_name(certificate: &X509) -> String {
        let entry = certificate
            .subject_name()
            .entries_by_nid(Nid::COMMONNAME)
            .next()
            .unwrap();
        entry.data().to_string().unwrap()
    }

    fn verify(authority: &Authority, certificate: &X509) -> X509VerifyResult {
        let mut store = X509StoreBuilder::new().unwrap();
        store.add_cert(authority.certificate().clone()).unwrap();
        let mut context = X509StoreContext::new().unwrap();
        let chain = Stack::new().unwrap();
        context
            .init(&store.build(), certificate, &chain, |context| {
                context.verify_cert()?;
                Ok(context.error())
            })
            .unwrap()
    }

    #[test]
    fn both_profiles_have_their_version_and_verify() {
        for (profile, version) in [(CertificateProfile::V1, 0), (CertificateProfile::V3, 2)] {
            let authority = Authority::new(Uuid::new_v4(), profile).unwrap();
            let addresses = vec![Ipv4Addr::LOCALHOST.into()];
            let roles = [
                Role::ControlService(addresses),
                Role::Node(Uuid::nil()),
                Role::User("plugin".to_owned()),
            ];
            assert_eq!(authority.certificate().version(), version);
            for role in roles {
                let identity = authority.issue(&role).unwrap();
                let certificate = identity.certificate();
                assert_eq!(certificate.version(), version, "{role:?}");
                assert_eq!(common_name(certificate), role.common_name());
                assert_eq!(verify(&authority, certificate), X509VerifyResult::OK, "{role:?}");
                assert!(
                    identity
                        .key_pem()
                        .unwrap()
                        .starts_with(b"-----BEGIN PRIVATE KEY-----")
                );
            }
        }
    }

    #[test]
    fn the_extensions_survive_in_version_1() {
        let authority = Authority::new(Uuid::new_v4(), CertificateProfile::V1).unwrap();
        let addresses = vec![Ipv4Addr::new(192, 0, 2, 7).into()];
        let control = authority.issue(&Role::ControlService(addresses)).unwrap();
        let names = control.certificate().subject_alt_names().unwrap();
        let dns: Vec<_> = names.iter().filter_map(|name| name.dnsname()).collect();
        let ips: Vec<_> = names.iter().filter_map(|name| name.ipaddress()).collect();
        assert_eq!(dns, [CONTROL_SERVICE]);
        assert_eq!(ips, [&[192, 0, 2, 7][..]]);
    }

    #[test]
    fn another_authority_or_another_time_does_not_verify() {
        let cluster = Uuid::new_v4();
        let authority = Authority::new(cluster, CertificateProfile::V1).unwrap();
        let foreign = Authority::new(cluster, CertificateProfile::V1).unwrap();
        let user = Role::User("plugin".to_owned());
        assert_ne!(
            verify(&authority, foreign.issue(&user).unwrap().certificate()),
            X509VerifyResult::OK
        );

        let expired = authority.issue_for(&user, &(-2..-1)).unwrap();
        assert_ne!(verify(&authority, expired.certificate()), X509VerifyResult::OK);
    }
}
