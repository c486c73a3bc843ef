//! Views of messages that are safe to log.

use std::{
    collections::HashMap,
    fmt::{self, Debug as _},
    sync::LazyLock,
};

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::{FILE_DESCRIPTOR_SET, secret::is_secret};

/// The text that replaces a secret.
const HIDDEN: &str = "***";

static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script has decoded the same bytes")
});

/// Returns a view of a CSI message for a log, in which secrets are replaced by `***`.
///
/// It hides the keys and values of all `secrets`, and mount flags. It leaves out fields that are not set, and quotes
/// and escapes texts, so the view is one line (several with `{:#?}`). It hides a message that is not in
/// [`FILE_DESCRIPTOR_SET`] as a whole.
///
/// ```
/// use csi_proto::{redacted, v1};
///
/// let request = v1::DeleteVolumeRequest {
///     volume_id: "18c1a34e-9c50-4a5e-8b0b-0f3d7f5d9a11".to_owned(),
///     secrets: [("password".to_owned(), "hunter2".to_owned())].into(),
/// };
/// assert_eq!(
///     redacted(&request).to_string(),
///     r#"DeleteVolumeRequest { volume_id: "18c1a34e-9c50-4a5e-8b0b-0f3d7f5d9a11", secrets: *** }"#
/// );
/// ```
pub fn redacted<M: Message + Name>(message: &M) -> Redacted<'_, M> {
    Redacted(message)
}

/// A view of a CSI message without its secrets; made by [`redacted`], the same for `{}` and `{:?}`.
#[derive(Clone, Copy)]
pub struct Redacted<'a, M>(&'a M);

impl<M: Message + Name> fmt::Display for Redacted<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A message that this code does not know might be a secret.
        let Some(descriptor) = DESCRIPTORS.get_message_by_name(&M::full_name()) else {
            return f.write_str(HIDDEN);
        };
        let mut message = DynamicMessage::new(descriptor);
        match message.transcode_from(self.0) {
            Ok(()) => Fields(&message).fmt(f),
            Err(_) => f.write_str(HIDDEN),
        }
    }
}

impl<M: Message + Name> fmt::Debug for Redacted<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Implements `Debug` with [`redacted`], for messages that are generated without it.
macro_rules! debug_is_redacted {
    ($($message:ty,)*) => {
        $(
            impl ::std::fmt::Debug for $message {
                fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                    ::std::fmt::Display::fmt(&$crate::redacted(self), f)
                }
            }
        )*
    };
}
pub(crate) use debug_is_redacted;

/// The fields of a message that are set.
struct Fields<'a>(&'a DynamicMessage);

impl fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let descriptor = self.0.descriptor();
        let mut fields = f.debug_struct(descriptor.name());
        for (field, value) in self.0.fields() {
            if is_secret(&field) {
                fields.field(field.name(), &format_args!("{HIDDEN}"));
            } else {
                fields.field(field.name(), &Content { field: &field, value });
            }
        }
        fields.finish()
    }
}

/// The value of a field that is not secret, or one of its elements.
struct Content<'a> {
    field: &'a FieldDescriptor,
    value: &'a Value,
}

impl fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value {
            Value::Bool(value) => value.fmt(f),
            Value::I32(value) => value.fmt(f),
            Value::I64(value) => value.fmt(f),
            Value::U32(value) => value.fmt(f),
            Value::U64(value) => value.fmt(f),
            Value::F32(value) => value.fmt(f),
            Value::F64(value) => value.fmt(f),
            Value::String(value) => value.fmt(f),
            Value::Bytes(value) => value.fmt(f),
            Value::EnumNumber(number) => enum_value(self.field, *number, f),
            Value::Message(message) => Fields(message).fmt(f),
            Value::List(elements) => f
                .debug_list()
                .entries(elements.iter().map(|value| Content { value, ..*self }))
                .finish(),
            Value::Map(entries) => map(self.field, entries, f),
        }
    }
}

fn enum_value(field: &FieldDescriptor, number: i32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let name = match field.kind() {
        Kind::Enum(descriptor) => descriptor.get_value(number),
        _ => None,
    };
    match name {
        Some(value) => f.write_str(value.name()),
        None => number.fmt(f),
    }
}

fn map(field: &FieldDescriptor, entries: &HashMap<MapKey, Value>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Kind::Message(entry) = field.kind() else {
        return f.write_str(HIDDEN);
    };
    let field = entry.map_entry_value_field();
    let mut sorted: Vec<_> = entries.iter().collect();
    sorted.sort_by_key(|(key, _)| *key);
    f.debug_map()
        .entries(
            sorted
                .into_iter()
                .map(|(key, value)| (Key(key), Content { field: &field, value })),
        )
        .finish()
}

/// A key of a map.
struct Key<'a>(&'a MapKey);

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            MapKey::Bool(key) => key.fmt(f),
            MapKey::I32(key) => key.fmt(f),
            MapKey::I64(key) => key.fmt(f),
            MapKey::U32(key) => key.fmt(f),
            MapKey::U64(key) => key.fmt(f),
            MapKey::String(key) => key.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{
        CreateVolumeRequest, VolumeCapability, VolumeUsage,
        volume_capability::{AccessMode, AccessType, MountVolume, access_mode::Mode},
    };

    fn texts(entries: &[(&str, &str)]) -> HashMap<String, String> {
        entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_request_is_one_line_with_the_names_of_the_protocol() {
        let request = CreateVolumeRequest {
            name: "two\nlines".to_owned(),
            volume_capabilities: vec![VolumeCapability {
                access_type: Some(AccessType::Mount(MountVolume {
                    fs_type: "ext4".to_owned(),
                    mount_flags: vec!["password=hunter2".to_owned()],
                    ..Default::default()
                })),
                access_mode: Some(AccessMode {
                    mode: Mode::SingleNodeWriter.into(),
                }),
            }],
            parameters: texts(&[("profile", "gold"), ("a", "b")]),
            secrets: texts(&[("user", "admin"), ("password", "hunter2")]),
            ..Default::default()
        };
        assert_eq!(
            redacted(&request).to_string(),
            r#"CreateVolumeRequest { name: "two\nlines", "#.to_owned()
                + r#"volume_capabilities: [VolumeCapability { mount: MountVolume { fs_type: "ext4", mount_flags: *** }, "#
                + "access_mode: AccessMode { mode: SINGLE_NODE_WRITER } }], "
                + r#"parameters: {"a": "b", "profile": "gold"}, secrets: *** }"#
        );
    }

    #[test]
    fn a_value_that_an_enum_does_not_define_is_shown_as_its_number() {
        let usage = VolumeUsage {
            unit: 99,
            ..Default::default()
        };
        assert_eq!(redacted(&usage).to_string(), "VolumeUsage { unit: 99 }");
    }

    #[test]
    fn a_message_of_another_package_is_hidden_as_a_whole() {
        let duration = prost_types::Duration { seconds: 7, nanos: 0 };
        assert_eq!(redacted(&duration).to_string(), "***");
    }
}
