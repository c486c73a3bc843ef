//! Which fields of CSI messages must not be logged.
//!
//! The build script also includes this file: it decides which messages get a `Debug` that hides them.

use prost_reflect::{FieldDescriptor, Value};

/// The option that marks a secret field in `csi.v1`.
const SECRET_OPTION: &str = "csi.v1.csi_secret";

/// Returns whether the content of a field must not be logged.
///
/// This holds for every field with the option `csi_secret`; for every map whose name ends with `secrets`, because
/// `csi.v0` has no such option; and in both packages for mount flags, because users put passwords into them.
pub(crate) fn is_secret(field: &FieldDescriptor) -> bool {
    is_marked(field) || (field.is_map() && field.name().ends_with("secrets")) || field.name() == "mount_flags"
}

fn is_marked(field: &FieldDescriptor) -> bool {
    field
        .parent_pool()
        .get_extension_by_name(SECRET_OPTION)
        .is_some_and(|option| *field.options().get_extension(&option) == Value::Bool(true))
}
