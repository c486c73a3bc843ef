//! Which fields of CSI messages must never be logged.
//!
//! The build script includes this file too: it decides there which messages get a `Debug` that hides them.

use prost_reflect::{FieldDescriptor, Value};

/// The option by which `csi.v1` marks its secret fields.
const SECRET_OPTION: &str = "csi.v1.csi_secret";

/// Tells whether the content of a field must never be logged.
///
/// So it is for every field with the option `csi_secret`; for every map whose name ends with `secrets`, since
/// `csi.v0` knows no such option; and in both packages for mount flags, in which users do put passwords.
pub(crate) fn is_secret(field: &FieldDescriptor) -> bool {
    is_marked(field) || (field.is_map() && field.name().ends_with("secrets")) || field.name() == "mount_flags"
}

fn is_marked(field: &FieldDescriptor) -> bool {
    field
        .parent_pool()
        .get_extension_by_name(SECRET_OPTION)
        .is_some_and(|option| *field.options().get_extension(&option) == Value::Bool(true))
}
