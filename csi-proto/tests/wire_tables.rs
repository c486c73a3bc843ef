//! The descriptors define exactly what the tables in `tests/data` contain, which come from the specification.
//!
//! Both are converted to facts, one line each, and compared as sets: a fact that is missing, superfluous or different
//! is a line that only one of them has.

use std::collections::{BTreeMap, BTreeSet};

use csi_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind,
    MessageDescriptor, ServiceDescriptor, Syntax, Value,
};
use serde::Deserialize;

const V1: &str = include_str!("data/csi.v1-1.12.0.json");
const V0: &str = include_str!("data/csi.v0-0.3.0.json");

#[test]
fn the_package_csi_v1_matches_its_table() {
    assert_same("csi/v1/csi.proto", V1);
}

#[test]
fn the_package_csi_v0_matches_its_table() {
    assert_same("csi/v0/csi.proto", V0);
}

#[test]
fn a_difference_of_any_kind_is_detected() {
    let differences = [
        (r#""package":"csi.v1""#, r#""package":"csi.v2""#),
        (r#""number": 1059"#, r#""number": 1058"#),
        (r#""name": "Probe""#, r#""name": "Prove""#),
        (r#""server_streaming": true"#, r#""server_streaming": false"#),
        (
            r#""output": "csi.v1.ProbeResponse""#,
            r#""output": "csi.v1.ProbeRequest""#,
        ),
        (r#""message": "ProbeRequest""#, r#""message": "ProveRequest""#),
        (
            r#""n": 2, "name": "vendor_version""#,
            r#""n": 4, "name": "vendor_version""#,
        ),
        (
            r#""name": "vendor_version", "type": "string""#,
            r#""name": "vendor_version", "type": "bytes""#,
        ),
        (
            r#""name": "manifest", "type": "map<string,string>""#,
            r#""name": "manifest", "type": "string""#,
        ),
        (r#""type": "repeated string""#, r#""type": "string""#),
        (r#""type": "google.protobuf.BoolValue""#, r#""type": "bool""#),
        (r#", "oneof": "access_type""#, ""),
        (r#", "options": ["csi_secret"]"#, ""),
        (r#""INODES": 2"#, r#""INODES": 3"#),
        (r#", "alpha": ["SNAPSHOT_METADATA_SERVICE"]"#, ""),
    ];
    let defined = defined(&file("csi/v1/csi.proto"));
    for (fact, changed) in differences {
        assert!(V1.contains(fact), "the table has no {fact}");
        let table: Table = serde_json::from_str(&V1.replacen(fact, changed, 1)).unwrap();
        assert_ne!(table.facts(), defined, "{fact} may become {changed} unnoticed");
    }
}

fn assert_same(path: &str, table: &str) {
    let table: Table = serde_json::from_str(table).expect("the table is well-formed");
    let (listed, defined) = (table.facts(), defined(&file(path)));
    let missing: Vec<_> = listed.difference(&defined).collect();
    let extra: Vec<_> = defined.difference(&listed).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{path} differs from its table\nonly in the table: {missing:#?}\nonly in the file: {extra:#?}"
    );
}

fn file(path: &str) -> FileDescriptor {
    let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the build script wrote descriptors");
    pool.get_file_by_name(path).expect("both files are compiled")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    package: String,
    extensions: Vec<Extension>,
    services: Vec<Service>,
    messages: Vec<Message>,
    enums: Vec<Enum>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Extension {
    name: String,
    number: u32,
    extends: String,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Service {
    #[serde(rename = "service")]
    name: String,
    options: Vec<String>,
    methods: Vec<Method>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Method {
    name: String,
    input: String,
    output: String,
    server_streaming: bool,
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    #[serde(rename = "message")]
    name: String,
    fields: Vec<Field>,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    n: u32,
    name: String,
    #[serde(rename = "type")]
    kind: String,
    oneof: Option<String>,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enum {
    #[serde(rename = "enum")]
    name: String,
    values: BTreeMap<String, i32>,
    #[serde(default)]
    alpha: Vec<String>,
}

impl Table {
    /// Returns the facts of a table.
    fn facts(&self) -> BTreeSet<String> {
        let package = &self.package;
        let mut facts = BTreeSet::from([format!("package {package} proto3")]);
        for e in &self.extensions {
            facts.insert(format!(
                "extension {package}.{} = {} of {}: {}",
                e.name, e.number, e.extends, e.kind
            ));
        }
        for service in &self.services {
            let name = format!("{package}.{}", service.name);
            facts.insert(format!("service {name}{}", self.numbers(&service.options)));
            for method in &service.methods {
                let stream = if method.server_streaming { "stream " } else { "" };
                let options = self.numbers(&method.options);
                facts.insert(format!(
                    "rpc {name}.{}: {} -> {stream}{}{options}",
                    method.name, method.input, method.output
                ));
            }
        }
        for message in &self.messages {
            let name = format!("{package}.{}", message.name);
            facts.insert(format!("message {name}{}", self.numbers(&message.options)));
            for field in &message.fields {
                let oneof = field.oneof.as_ref().map(|oneof| format!(" in oneof {oneof}"));
                let more = oneof.unwrap_or_default() + &self.numbers(&field.options);
                facts.insert(format!(
                    "field {name}.{} = {}: {}{more}",
                    field.name, field.n, field.kind
                ));
            }
        }
        for one in &self.enums {
            let name = format!("{package}.{}", one.name);
            facts.insert(format!("enum {name}"));
            for (value, number) in &one.values {
                let alpha = one.alpha.contains(value).then(|| "alpha_enum_value".to_owned());
                facts.insert(format!(
                    "value {name}.{value} = {number}{}",
                    self.numbers(alpha.as_slice())
                ));
            }
        }
        facts
    }

    /// Returns options by their numbers.
    ///
    /// The tables call every option with the number 1060 `alpha_service`, also on messages, methods and fields,
    /// where the specification calls it `alpha_message`, `alpha_method` and `alpha_field`.
    fn numbers(&self, options: &[String]) -> String {
        let number = |name: &String| {
            let known = self.extensions.iter().find(|known| known.name == *name);
            known.expect("the table lists every option").number.to_string()
        };
        written(options.iter().map(number).collect())
    }
}

/// Returns the facts that a file defines.
fn defined(file: &FileDescriptor) -> BTreeSet<String> {
    let syntax = match file.syntax() {
        Syntax::Proto2 => "proto2",
        Syntax::Proto3 => "proto3",
    };
    let mut facts = BTreeSet::from([format!(
        "package {} {syntax}{}",
        file.package_name(),
        set(&file.options())
    )]);
    for extension in file.extensions() {
        facts.insert(format!(
            "extension {} = {} of {}: {}",
            extension.full_name(),
            extension.number(),
            extension.containing_message().full_name(),
            kind(&extension.kind())
        ));
    }
    file.services()
        .for_each(|service| add_service(&service, &mut facts));
    file.messages()
        .for_each(|message| add_message(&message, &mut facts));
    file.enums().for_each(|r#enum| add_enum(&r#enum, &mut facts));
    facts
}

fn add_service(service: &ServiceDescriptor, facts: &mut BTreeSet<String>) {
    facts.insert(format!(
        "service {}{}",
        service.full_name(),
        set(&service.options())
    ));
    for method in service.methods() {
        facts.insert(format!(
            "rpc {}: {}{} -> {}{}{}",
            method.full_name(),
            if method.is_client_streaming() {
                "stream "
            } else {
                ""
            },
            method.input().full_name(),
            if method.is_server_streaming() {
                "stream "
            } else {
                ""
            },
            method.output().full_name(),
            set(&method.options())
        ));
    }
}

fn add_message(message: &MessageDescriptor, facts: &mut BTreeSet<String>) {
    // The compiler makes a message of every map; the field already states this fact.
    if message.is_map_entry() {
        return;
    }
    facts.insert(format!(
        "message {}{}",
        message.full_name(),
        set(&message.options())
    ));
    for field in message.fields() {
        let oneof = field
            .containing_oneof()
            .map(|oneof| format!(" in oneof {}", oneof.name()));
        facts.insert(format!(
            "field {}.{} = {}: {}{}{}",
            message.full_name(),
            field.name(),
            field.number(),
            field_type(&field),
            oneof.unwrap_or_default(),
            set(&field.options())
        ));
    }
    message
        .child_messages()
        .for_each(|message| add_message(&message, facts));
    message.child_enums().for_each(|r#enum| add_enum(&r#enum, facts));
}

fn add_enum(r#enum: &EnumDescriptor, facts: &mut BTreeSet<String>) {
    facts.insert(format!("enum {}{}", r#enum.full_name(), set(&r#enum.options())));
    for value in r#enum.values() {
        facts.insert(format!(
            "value {}.{} = {}{}",
            r#enum.full_name(),
            value.name(),
            value.number(),
            set(&value.options())
        ));
    }
}

fn field_type(field: &FieldDescriptor) -> String {
    match (field.cardinality(), field.kind()) {
        (_, Kind::Message(entry)) if field.is_map() => format!(
            "map<{},{}>",
            kind(&entry.map_entry_key_field().kind()),
            kind(&entry.map_entry_value_field().kind())
        ),
        (Cardinality::Optional, single) => kind(&single),
        (Cardinality::Repeated, element) => format!("repeated {}", kind(&element)),
        (Cardinality::Required, single) => format!("required {}", kind(&single)),
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(r#enum) => r#enum.full_name().to_owned(),
        scalar => format!("{scalar:?}"),
    }
}

/// Returns the options that are set: custom ones by number, the rest by name.
fn set(options: &DynamicMessage) -> String {
    let custom = options.extensions().map(|(option, value)| match value {
        Value::Bool(true) => option.number().to_string(),
        other => format!("{} = {other:?}", option.number()),
    });
    let others = options
        .fields()
        .map(|(option, value)| format!("{} = {value:?}", option.name()));
    written(custom.chain(others).collect())
}

fn written(mut options: Vec<String>) -> String {
    if options.is_empty() {
        return String::new();
    }
    options.sort();
    format!(" with options {options:?}")
}
