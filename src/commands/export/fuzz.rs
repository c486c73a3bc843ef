//! Kubernetes objects from any author.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::args::Format;
use super::volume::Volume;
use super::{manifest, objects};

/// Parses any text as Kubernetes objects, and writes it as a part of one.
///
/// # Panics
/// If a refusal does not name the source of the text, or if what is written differs when it is parsed again.
pub fn objects(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match objects::parse("-", text) {
        Ok(objects) => assert!(objects.iter().all(|object| !object.name.is_empty())),
        Err(problems) => {
            assert!(!problems.is_empty());
            assert!(
                problems
                    .iter()
                    .all(|problem| problem.starts_with("the standard input"))
            );
        }
    }
    let written = Volume {
        name: text.to_owned(),
        dataset: Uuid::nil(),
        capacity: text.to_owned(),
        access_modes: vec![text.to_owned()],
        read_only: false,
        mount_options: Vec::new(),
        storage_class: text.to_owned(),
        labels: BTreeMap::new(),
        annotations: [("text".to_owned(), text.to_owned())].into(),
        node_affinity: Some(Value::from(vec![text])),
        claim: None,
        bound: true,
    };
    for format in [Format::Yaml, Format::Json] {
        let manifest = manifest::volume(&written, "driver", false);
        let manifests = manifest::write(&[manifest], format).expect("any text can be written");
        let read: Value = match format {
            Format::Yaml => serde_saphyr::from_str(&manifests).expect("what is written can be read"),
            Format::Json => {
                let list: Value = serde_json::from_str(&manifests).expect("what is written can be read");
                list["items"][0].clone()
            }
        };
        for pointer in [
            "/metadata/name",
            "/metadata/annotations/text",
            "/spec/capacity/storage",
            "/spec/accessModes/0",
            "/spec/storageClassName",
            "/spec/nodeAffinity/0",
        ] {
            assert_eq!(
                read.pointer(pointer).and_then(Value::as_str),
                Some(text),
                "{pointer}"
            );
        }
    }
}
