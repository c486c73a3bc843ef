//! The messages, clients and servers of the Container Storage Interface, and of the registration with a kubelet.
//!
//! The crate holds two versions of the protocol: [`v1`] is the package `csi.v1` of specification 1.12.0, and [`v0`] is
//! the package `csi.v0` of specification 0.3.0. Both are generated from the `.proto` files of this crate when it is
//! built; `protoc` is not needed. The specification documents every message and call.
//!
//! No message prints a secret: `Debug` of every message that can hold one prints it by [`redacted`], which hides
//! secrets and mount flags.

mod redact;
mod secret;

pub use redact::{Redacted, redacted};

/// The descriptors of both packages and of the well-known types they use, as an encoded `FileDescriptorSet`.
///
/// It holds the custom options, such as `csi_secret`, but no comments.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/csi_descriptor.bin"));

/// The paths of all methods of both packages, as in `/csi.v1.Node/NodeStageVolume`.
pub const METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// The package `csi.v1`, specification 1.12.0.
#[allow(clippy::pedantic, reason = "the style is that of the generator")]
pub mod v1 {
    tonic::include_proto!("csi.v1");
    include!(concat!(env!("OUT_DIR"), "/csi.v1.redacted.rs"));
}

/// The package `csi.v0`, specification 0.3.0.
#[allow(clippy::pedantic, reason = "the style is that of the generator")]
pub mod v0 {
    tonic::include_proto!("csi.v0");
    include!(concat!(env!("OUT_DIR"), "/csi.v0.redacted.rs"));
}

/// The package `pluginregistration`, version 1: how a plugin registers with a kubelet.
#[allow(clippy::pedantic, reason = "the style is that of the generator")]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
