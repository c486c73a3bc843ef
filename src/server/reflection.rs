//! The reflection services, from which clients such as `grpcurl` learn which services exist.

use tonic_reflection::server::{Builder, Error, v1, v1alpha};

/// The services that exist in every mode of the plugin.
const ALWAYS_SERVED: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Both versions of the reflection service, as old clients know only the older.
pub(crate) struct Reflection<V1: v1::ServerReflection, V1Alpha: v1alpha::ServerReflection> {
    /// The current version.
    pub v1: v1::ServerReflectionServer<V1>,
    /// The older version.
    pub v1alpha: v1alpha::ServerReflectionServer<V1Alpha>,
}

/// Describes the services with these names, which `descriptors` holds encoded, and health and reflection themselves.
///
/// # Errors
/// The descriptors cannot be read.
pub(crate) fn describe(
    descriptors: &'static [u8],
    services: &[&str],
) -> Result<Reflection<impl v1::ServerReflection, impl v1alpha::ServerReflection>, Error> {
    let builder = || {
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
    };
    Ok(Reflection {
        v1: builder().build_v1()?,
        v1alpha: builder().build_v1alpha()?,
    })
}
