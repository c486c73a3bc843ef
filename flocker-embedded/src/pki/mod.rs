//! The certificate authority of the cluster, and the certificates it issues.
//!
//! Names, extensions, algorithm and validity are those of Flocker's own authority, in both
//! [profiles](crate::CertificateProfile). Only the keys are shorter: 2048 bits instead of 4096, which makes them
//! faster to generate and to use.

mod authority;
mod files;
mod version_1;

pub use authority::{Authority, CONTROL_SERVICE, Identity, Role};
pub(crate) use files::Pki;
