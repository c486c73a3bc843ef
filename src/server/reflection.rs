//! The reflection services, from which clients such as `grpcurl` learn which services exist.

use tonic::Status;
use tonic_reflection::server::{Builder, Error, v1, v1alpha};

use super::on_first_call::OnFirstCall;
use crate::error::chain;

/// The services that exist in every mode of the plugin.
const ALWAYS_SERVED: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Both versions of the reflection service, as old clients know only the older.
pub(crate) struct Reflection<V1: v1::ServerReflection, V1Alpha: v1alpha::ServerReflection> {
    /// The current version.
    pub v1: OnFirstCall<v1::ServerReflectionServer<V1>>,
    /// The older version.
    pub v1alpha: OnFirstCall<v1alpha::ServerReflectionServer<V1Alpha>>,
}

/// Describes the services with these names, which `descriptors` holds encoded, and health and reflection themselves.
///
/// The descriptors are decoded by the first call: they take a third of a MiB, and an orchestrator never asks for them.
pub(crate) fn describe(
    descriptors: &'static [u8],
    services: Vec<&'static str>,
) -> Reflection<impl v1::ServerReflection, impl v1alpha::ServerReflection> {
    let older = services.clone();
    Reflection {
        v1: OnFirstCall::new(move || {
            builder(descriptors, &services)
                .build_v1()
                .map_err(|error| undescribed(&error))
        }),
        v1alpha: OnFirstCall::new(move || {
            builder(descriptors, &older)
                .build_v1alpha()
                .map_err(|error| undescribed(&error))
        }),
    }
}

fn builder(descriptors: &'static [u8], services: &[&'static str]) -> Builder<'static> {
    let builder = Builder::configure()
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(descriptors)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
    services
        .iter()
        .chain(&ALWAYS_SERVED)
        .fold(builder, |builder, service| builder.with_service_name(*service))
}

fn undescribed(error: &Error) -> Status {
    Status::internal(format!("the services cannot be described: {}", chain(error)))
}
