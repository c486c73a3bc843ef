//! The errors of files that cannot be used.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use openssl::{pkey::PKey, rsa::Rsa, symm::Cipher};
use tempfile::TempDir;

use super::{
    full_message,
    pki::{self, Authority, CertificateRequest, Issued, OTHER, V1, V3},
};
use crate::{Credentials, CredentialsError, CredentialsFile, CredentialsProblem};

/// The three files, which are good until a test changes one.
struct Files {
    _dir: TempDir,
    cluster: PathBuf,
    user: PathBuf,
    key: PathBuf,
}

impl Files {
    fn good() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name| dir.path().join(name);
        let (cluster, user, key) = (path("cluster.crt"), path("plugin.crt"), path("plugin.key"));
        let issued = V1.user();
        fs::write(&cluster, V1.pem()).unwrap();
        fs::write(&user, issued.pem()).unwrap();
        fs::write(&key, issued.key_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self {
            _dir: dir,
            cluster,
            user,
            key,
        }
    }

    fn load(&self) -> Result<Credentials, CredentialsError> {
        Credentials::load(&self.cluster, &self.user, &self.key)
    }

    /// Asserts that loading fails over one of the files, with a message that names it and contains `expected`.
    fn refused(&self, file: CredentialsFile, expected: &str, problem: fn(&CredentialsProblem) -> bool) {
        let error = self.load().unwrap_err();
        let path = match file {
            CredentialsFile::ClusterCertificate => &self.cluster,
            CredentialsFile::UserCertificate => &self.user,
            CredentialsFile::UserKey => &self.key,
        };
        let text = full_message(&error);
        assert_eq!(error.file(), file, "{text}");
        assert!(problem(error.problem()), "{error:?}");
        assert!(
            text.contains(path.to_str().unwrap()) && text.contains(expected),
            "{text}"
        );
    }

    /// Replaces the user's certificate and key.
    fn set_user(&self, issued: &Issued) {
        fs::write(&self.user, issued.pem()).unwrap();
        fs::write(&self.key, issued.key_pem()).unwrap();
    }
}

const CLUSTER: CredentialsFile = CredentialsFile::ClusterCertificate;
const USER: CredentialsFile = CredentialsFile::UserCertificate;
const KEY: CredentialsFile = CredentialsFile::UserKey;

#[test]
fn good_files_have_the_name_of_the_user_and_the_end_of_validity() {
    let files = Files::good();
    let credentials = files.load().unwrap();
    assert_eq!(credentials.user(), "plugin");
    let left = credentials.not_after().duration_since(SystemTime::now()).unwrap();
    let days = |days: u64| Duration::from_secs(days * 86_400);
    assert!(left <= days(365) && left > days(364), "{left:?}");
    assert!(!credentials.key_readable_by_others());
}

#[test]
fn credentials_end_with_the_first_of_their_certificates() {
    let user = V3.issue(&CertificateRequest {
        valid: (-60, 3600),
        ..CertificateRequest::for_name("user-short")
    });
    let credentials = Credentials::from_pem(&V3.pem(), &user.pem(), &user.key_pem()).unwrap();
    let left = credentials.not_after().duration_since(SystemTime::now()).unwrap();
    assert!(left <= Duration::from_secs(3600), "{left:?}");
}

#[test]
fn a_key_that_others_may_read_is_noticed() {
    for (mode, noticed) in [(0o400, false), (0o620, false), (0o640, true), (0o604, true)] {
        let files = Files::good();
        fs::set_permissions(&files.key, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(
            files.load().unwrap().key_readable_by_others(),
            noticed,
            "{mode:o}"
        );
    }
}

#[test]
fn a_key_does_not_show_in_debug_output() {
    let text = format!("{:?}", Files::good().load().unwrap());
    assert!(text.contains("user-plugin") && text.len() < 100, "{text}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    for file in [CLUSTER, USER, KEY] {
        let mut files = Files::good();
        let absent = files.cluster.with_file_name("absent");
        let directory = files.cluster.parent().unwrap().to_owned();
        let path = match file {
            CredentialsFile::ClusterCertificate => &mut files.cluster,
            CredentialsFile::UserCertificate => &mut files.user,
            CredentialsFile::UserKey => &mut files.key,
        };
        *path = absent;
        files.refused(file, "does not exist", |problem| {
            matches!(problem, CredentialsProblem::Missing)
        });
        let path = match file {
            CredentialsFile::ClusterCertificate => &mut files.cluster,
            CredentialsFile::UserCertificate => &mut files.user,
            CredentialsFile::UserKey => &mut files.key,
        };
        *path = directory;
        let unreadable = |problem: &CredentialsProblem| matches!(problem, CredentialsProblem::Unreadable(_));
        files.refused(file, "cannot be read: ", unreadable);
    }
}

#[test]
fn files_with_other_contents_are_named() {
    let files = Files::good();
    fs::write(&files.cluster, V1.certificate.to_der().unwrap()).unwrap();
    files.refused(CLUSTER, "not in PEM form", |problem| {
        matches!(problem, CredentialsProblem::NotPem)
    });

    let files = Files::good();
    fs::copy(&files.key, &files.user).unwrap();
    files.refused(USER, "contains no certificate", |problem| {
        matches!(problem, CredentialsProblem::NoCertificate)
    });

    let files = Files::good();
    fs::copy(&files.user, &files.key).unwrap();
    files.refused(KEY, "contains no private key", |problem| {
        matches!(problem, CredentialsProblem::NoKey)
    });

    let files = Files::good();
    fs::write(&files.key, "").unwrap();
    files.refused(KEY, "not in PEM form", |problem| {
        matches!(problem, CredentialsProblem::NotPem)
    });
}

#[test]
fn damaged_files_are_named() {
    for file in [CLUSTER, USER, KEY] {
        let files = Files::good();
        let path = match file {
            CredentialsFile::ClusterCertificate => &files.cluster,
            CredentialsFile::UserCertificate => &files.user,
            CredentialsFile::UserKey => &files.key,
        };
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, &text[..text.len() / 2]).unwrap();
        files.refused(file, "is damaged: ", |problem| {
            matches!(problem, CredentialsProblem::Malformed(_))
        });
    }
}

#[test]
fn encrypted_keys_are_refused_without_asking_for_a_passphrase() {
    let key = V1.user().key;
    let pkcs8 = |phrase: &[u8]| {
        key.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), phrase)
            .unwrap()
    };
    let pkcs1 = key
        .rsa()
        .unwrap()
        .private_key_to_pem_passphrase(Cipher::aes_128_cbc(), b"secret")
        .unwrap();
    for pem in [pkcs8(b"secret"), pkcs8(b""), pkcs1] {
        let files = Files::good();
        fs::write(&files.key, pem).unwrap();
        files.refused(KEY, "is encrypted", |problem| {
            matches!(problem, CredentialsProblem::Encrypted)
        });
    }
}

#[test]
fn a_key_to_another_certificate_is_refused() {
    for key in [pki::rsa_key(), pki::ec_key()] {
        let files = Files::good();
        fs::write(&files.key, key.private_key_to_pem_pkcs8().unwrap()).unwrap();
        files.refused(KEY, "does not belong", |problem| {
            matches!(problem, CredentialsProblem::OtherKey)
        });
    }
}

#[test]
fn certificates_outside_their_validity_are_refused_with_the_date() {
    let files = Files::good();
    files.set_user(&V1.issue(&CertificateRequest::expired("user-plugin")));
    files.refused(USER, "GMT", |problem| {
        matches!(problem, CredentialsProblem::Expired { .. })
    });
    files.set_user(&V1.issue(&CertificateRequest::premature("user-plugin")));
    files.refused(USER, "GMT", |problem| {
        matches!(problem, CredentialsProblem::NotYetValid { .. })
    });

    let cluster = Authority::valid("expired", (-7200, -3600));
    fs::write(&files.cluster, cluster.pem()).unwrap();
    files.set_user(&cluster.user());
    files.refused(CLUSTER, "expired on", |problem| {
        matches!(problem, CredentialsProblem::Expired { .. })
    });
}

#[test]
fn certificates_outside_their_validity_can_be_loaded_and_are_named() {
    let files = Files::good();
    let load = || Credentials::load_for_any_time(&files.cluster, &files.user, &files.key);
    let now = SystemTime::now();
    assert!(load().unwrap().out_of_date(now).is_none());
    let assert_named = |file, path: &Path, expected: &str| {
        let error = load().unwrap().out_of_date(now).unwrap();
        assert_eq!(error.file(), file, "{error}");
        let expected = format!("{} {expected}", path.display());
        assert!(error.to_string().contains(&expected), "{error}");
    };
    files.set_user(&V1.issue(&CertificateRequest::expired("user-plugin")));
    assert_named(USER, &files.user, "expired on");
    files.set_user(&V1.issue(&CertificateRequest::premature("user-plugin")));
    assert_named(USER, &files.user, "is not valid before");
    let cluster = Authority::valid("expired", (-7200, -3600));
    fs::write(&files.cluster, cluster.pem()).unwrap();
    files.set_user(&cluster.user());
    assert_named(CLUSTER, &files.cluster, "expired on");

    let other_key = pki::rsa_key();
    fs::write(&files.key, other_key.private_key_to_pem_pkcs8().unwrap()).unwrap();
    assert!(matches!(
        load().unwrap_err().problem(),
        CredentialsProblem::OtherKey
    ));
}

#[test]
fn certificates_that_are_no_users_are_refused_with_what_they_are() {
    for (name, expected) in [
        (
            "node-0fbbd6e1-f558-4ea3-b2fe-b0268d12322a",
            "a node's certificate",
        ),
        ("control-service", "the control service's own certificate"),
        ("plugin", "is of `plugin`"),
        ("user-", "is of `user-`"),
    ] {
        let files = Files::good();
        files.set_user(&V1.issue(&CertificateRequest::for_name(name)));
        let not_user = |problem: &CredentialsProblem| matches!(problem, CredentialsProblem::NotUser { .. });
        files.refused(USER, expected, not_user);
        files.refused(USER, "flocker-ca create-api-certificate NAME", not_user);
    }
}

#[test]
fn certificates_of_different_clusters_are_refused() {
    // The second authority has the name of the right one, but another key.
    for authority in [&*OTHER, &*V3] {
        let files = Files::good();
        fs::write(&files.cluster, authority.pem()).unwrap();
        files.refused(USER, "different clusters", |problem| {
            matches!(problem, CredentialsProblem::OtherAuthority { .. })
        });
    }
    let files = Files::good();
    fs::copy(&files.user, &files.cluster).unwrap();
    files.refused(USER, "is not signed by", |problem| {
        matches!(problem, CredentialsProblem::OtherAuthority { .. })
    });
}

#[test]
fn a_cluster_file_may_hold_several_authorities() {
    let files = Files::good();
    fs::write(&files.cluster, [OTHER.pem(), V1.pem()].concat()).unwrap();
    assert_eq!(files.load().unwrap().user(), "plugin");
}

#[test]
fn a_key_too_short_for_openssl_is_refused_before_it_is_used() {
    let key = PKey::from_rsa(Rsa::generate(1024).unwrap()).unwrap();
    let files = Files::good();
    files.set_user(&V1.issue(&CertificateRequest {
        key,
        ..CertificateRequest::for_name("user-plugin")
    }));
    files.refused(USER, "is refused by OpenSSL: ", |problem| {
        matches!(problem, CredentialsProblem::Unusable(_))
    });
}

#[test]
fn files_that_are_replaced_or_written_to_are_noticed_and_loaded_again() {
    let files = Files::good();
    let first = files.load().unwrap();
    assert!(!first.changed_on_disk());

    // The file itself is written, replaced by another file, and removed.
    let changes: [fn(&PathBuf); 3] = [
        |file| fs::write(file, fs::read(file).unwrap()).unwrap(),
        |file| {
            let next = file.with_extension("next");
            fs::copy(file, &next).unwrap();
            fs::rename(next, file).unwrap();
        },
        |file| fs::remove_file(file).unwrap(),
    ];
    for file in [&files.cluster, &files.user, &files.key] {
        let text = fs::read(file).unwrap();
        for change in changes {
            // The resolution of a file's times is a tick of the kernel, which is longer than these steps.
            let long_ago = SystemTime::now() - Duration::from_secs(3600);
            let opened = fs::File::options().write(true).open(file).unwrap();
            opened.set_modified(long_ago).unwrap();
            let before = files.load().unwrap();
            change(file);
            assert!(before.changed_on_disk(), "{}", file.display());
            fs::write(file, &text).unwrap();
            let again = before.load_again().unwrap();
            assert!(again.same_as(&first) && !again.changed_on_disk());
        }
    }
    files.set_user(&V1.user());
    assert!(!first.load_again().unwrap().same_as(&first));
}

#[test]
fn credentials_that_came_as_texts_never_change() {
    let credentials = V1.credentials();
    assert!(!credentials.changed_on_disk());
    assert!(credentials.load_again().unwrap().same_as(&credentials));
}
