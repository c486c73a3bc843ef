//! The labels of metrics, each of a bounded set.

use prometheus_client::encoding::EncodeLabelSet;

/// How calls are distinguished.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Call {
    service: &'static str,
    method: &'static str,
    code: &'static str,
    csi_version: &'static str,
}

/// The methods that the plugin serves beside those of CSI.
const OTHERS: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

impl Call {
    /// Describes a call of the method with this path, which a client may have invented.
    pub(super) fn new(path: &str, code: &'static str) -> Self {
        let mut served = csi_proto::METHODS.iter().chain(&OTHERS);
        let known = served.find(|known| **known == path);
        let parts = known.and_then(|known| known.strip_prefix('/')?.split_once('/'));
        let (service, method) = parts.unwrap_or(("other", "other"));
        let (package, service) = service.rsplit_once('.').unwrap_or(("", service));
        Self {
            service,
            method,
            code,
            csi_version: match package {
                "csi.v1" => "1",
                "csi.v0" => "0",
                _ => "none",
            },
        }
    }
}

/// A phase of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Step {
    pub(super) operation: &'static str,
    pub(super) phase: &'static str,
}

/// A request to Flocker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Request {
    pub(super) endpoint: &'static str,
    pub(super) outcome: &'static str,
}

/// A mount that the plugin makes, or removes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Mounting {
    pub(super) operation: &'static str,
    pub(super) outcome: &'static str,
}

/// A read of Flocker's lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Read {
    pub(super) outcome: &'static str,
}
