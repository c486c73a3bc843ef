//! No message of either package prints a secret, in any format.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use csi_proto::{FILE_DESCRIPTOR_SET, redacted, v0, v1};
use prost::{Message, Name};
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};

/// Part of every secret that a test puts into a message.
const CANARY: &str = "canary";
/// The content of every other text.
const PLAIN: &str = "plain";

/// Prints an encoded message in every format, after checking that it carries a secret.
type Print = fn(&[u8]) -> Vec<String>;

/// Maps the full names of messages to their printers.
macro_rules! printers {
    ($($message:ty,)*) => { BTreeMap::from([$((<$message>::full_name(), print::<$message> as Print),)*]) };
}

fn printers() -> BTreeMap<String, Print> {
    printers![
        v1::CreateVolumeRequest,
        v1::VolumeCapability,
        v1::volume_capability::MountVolume,
        v1::DeleteVolumeRequest,
        v1::ControllerPublishVolumeRequest,
        v1::ControllerUnpublishVolumeRequest,
        v1::ValidateVolumeCapabilitiesRequest,
        v1::ValidateVolumeCapabilitiesResponse,
        v1::validate_volume_capabilities_response::Confirmed,
        v1::ControllerModifyVolumeRequest,
        v1::GetCapacityRequest,
        v1::CreateSnapshotRequest,
        v1::DeleteSnapshotRequest,
        v1::ListSnapshotsRequest,
        v1::GetSnapshotRequest,
        v1::ControllerExpandVolumeRequest,
        v1::NodeStageVolumeRequest,
        v1::NodePublishVolumeRequest,
        v1::NodeExpandVolumeRequest,
        v1::CreateVolumeGroupSnapshotRequest,
        v1::DeleteVolumeGroupSnapshotRequest,
        v1::GetVolumeGroupSnapshotRequest,
        v1::GetMetadataAllocatedRequest,
        v1::GetMetadataDeltaRequest,
        v0::CreateVolumeRequest,
        v0::VolumeCapability,
        v0::volume_capability::MountVolume,
        v0::DeleteVolumeRequest,
        v0::ControllerPublishVolumeRequest,
        v0::ControllerUnpublishVolumeRequest,
        v0::ValidateVolumeCapabilitiesRequest,
        v0::GetCapacityRequest,
        v0::CreateSnapshotRequest,
        v0::DeleteSnapshotRequest,
        v0::NodeStageVolumeRequest,
        v0::NodePublishVolumeRequest,
    ]
}

#[test]
fn every_message_that_can_hold_a_secret_is_checked() {
    let tried: BTreeSet<_> = printers().into_keys().collect();
    let able: BTreeSet<_> = messages()
        .filter(can_hold_a_secret)
        .map(|message| message.full_name().to_owned())
        .collect();
    assert_eq!(tried, able);
}

#[test]
fn no_secret_is_printed_but_every_other_field_is() {
    let printers = printers();
    for message in messages().filter(can_hold_a_secret) {
        let print = printers[message.full_name()];
        for text in print(&filled(&message).encode_to_vec()) {
            assert!(!text.contains(CANARY), "{} leaks: {text}", message.full_name());
            assert!(
                text.contains("***"),
                "{} does not show that it hides something: {text}",
                message.full_name()
            );
            assert!(
                text.contains(PLAIN),
                "{} hides too much: {text}",
                message.full_name()
            );
        }
    }
}

#[test]
fn the_capability_of_a_mounted_volume_is_safe_by_itself() {
    let mount = v1::volume_capability::MountVolume {
        mount_flags: vec![format!("password={CANARY}")],
        ..Default::default()
    };
    let access = v1::volume_capability::AccessType::Mount(mount);
    assert_eq!(format!("{access:?}"), "Mount(MountVolume { mount_flags: *** })");
}

fn print<M: Message + Name + Default + Clone + Debug + 'static>(bytes: &[u8]) -> Vec<String> {
    let message = M::decode(bytes).expect("the descriptor and the type define the same message");
    let again = String::from_utf8_lossy(&message.encode_to_vec()).into_owned();
    assert!(
        again.contains(CANARY),
        "{} holds no secret to begin with",
        M::full_name()
    );
    vec![
        format!("{message:?}"),
        format!("{message:#?}"),
        redacted(&message).to_string(),
        format!("{:?}", redacted(&message)),
        format!("{:?}", Some(vec![message.clone()])),
        format!("{:?}", tonic::Request::new(message)),
    ]
}

/// Returns the messages of both packages.
fn messages() -> impl Iterator<Item = MessageDescriptor> {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote descriptors");
    let all: Vec<_> = pool.all_messages().collect();
    all.into_iter()
        .filter(|message| message.package_name().starts_with("csi.") && !message.is_map_entry())
}

fn can_hold_a_secret(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| {
        is_secret(&field) || matches!(field.kind(), Kind::Message(inner) if can_hold_a_secret(&inner))
    })
}

/// Returns whether a field is secret, by a rule of this test: named or marked as one, or mount flags.
fn is_secret(field: &FieldDescriptor) -> bool {
    let marked = field
        .options()
        .extensions()
        .any(|(option, _)| option.number() == 1059);
    marked || field.name().contains("secret") || field.name() == "mount_flags"
}

/// Makes a message with every field set; of a oneof, a field that can hold a secret if one exists.
fn filled(descriptor: &MessageDescriptor) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    // Setting a field of a oneof clears the previous one, so the last one stays.
    let (harmless, secret): (Vec<_>, Vec<_>) = descriptor.fields().partition(|field| {
        !is_secret(field) && !matches!(field.kind(), Kind::Message(inner) if can_hold_a_secret(&inner))
    });
    for field in harmless.into_iter().chain(secret) {
        let text = if is_secret(&field) { CANARY } else { PLAIN };
        message.set_field(&field, content(&field, text));
    }
    message
}

fn content(field: &FieldDescriptor, text: &str) -> Value {
    if field.is_map() {
        let entry = (
            MapKey::String(format!("{text}-key")),
            Value::String(format!("{text}-value")),
        );
        return Value::Map([entry].into());
    }
    let one = match field.kind() {
        Kind::String => Value::String(text.to_owned()),
        Kind::Bool => Value::Bool(true),
        Kind::Int32 => Value::I32(7),
        Kind::Int64 => Value::I64(7),
        Kind::Enum(_) => Value::EnumNumber(1),
        Kind::Message(inner) => Value::Message(filled(&inner)),
        other => panic!("no content for {} of type {other:?}", field.full_name()),
    };
    match field.cardinality() {
        Cardinality::Repeated => Value::List(vec![one]),
        Cardinality::Optional | Cardinality::Required => one,
    }
}
