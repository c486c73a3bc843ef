//! Compiles the `.proto` files to Rust, without `protoc`.
//!
//! For each package it writes messages, clients and servers to `OUT_DIR` (`csi.v1.rs`); for those of CSI also the list
//! of messages that hold a secret (`csi.v1.redacted.rs`), and for both together the descriptors (`csi_descriptor.bin`)
//! and the list of methods (`methods.rs`).

use std::{env, error::Error, fs, path::PathBuf};

use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_reflect::{DescriptorPool, MessageDescriptor};
use tonic_prost_build::Config;

#[path = "src/secret.rs"]
mod secret;

const PROTO_DIR: &str = "proto";
const PROTO_FILES: [&str; 2] = ["csi/v1/csi.proto", "csi/v0/csi.proto"];
const PACKAGES: [&str; 2] = ["csi.v1", "csi.v0"];
/// The file that is not part of CSI, and defines no secrets.
const REGISTRATION: &str = "pluginregistration.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO_DIR}");
    println!("cargo::rerun-if-changed=src/secret.rs");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);

    let mut compiler = protox::Compiler::new([PROTO_DIR])?;
    compiler.include_imports(true).open_files(PROTO_FILES)?;

    // The program needs the custom options, which only the encoded form keeps, but not the comments.
    let encoded = compiler.include_source_info(false).encode_file_descriptor_set();
    let pool = DescriptorPool::decode(encoded.as_slice())?;
    fs::write(out_dir.join("csi_descriptor.bin"), encoded)?;

    for package in PACKAGES {
        let types: Vec<_> = secret_holders(&pool)
            .filter(|message| message.package_name() == package)
            .map(|message| rust_path(&message))
            .collect();
        let list = format!(
            "crate::redact::debug_is_redacted! {{\n    {},\n}}\n",
            types.join(",\n    ")
        );
        fs::write(out_dir.join(format!("{package}.redacted.rs")), list)?;
    }

    let methods = pool.services().flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods
            .into_iter()
            .map(move |method| format!("/{}/{}", service.full_name(), method.name()))
    });
    let methods: Vec<_> = methods.collect();
    fs::write(out_dir.join("methods.rs"), format!("&{methods:#?}"))?;

    let mut config = Config::new();
    config.enable_type_names();
    config.skip_debug(secret_holders(&pool).map(|message| format!(".{}", message.full_name())));
    compiler.include_source_info(true);
    tonic_prost_build::configure().compile_fds_with_config(compiler.file_descriptor_set(), config)?;

    let mut compiler = protox::Compiler::new([PROTO_DIR])?;
    compiler.include_source_info(true).open_file(REGISTRATION)?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

/// Returns the messages of which a field is secret.
fn secret_holders(pool: &DescriptorPool) -> impl Iterator<Item = MessageDescriptor> + '_ {
    pool.all_messages()
        .filter(|message| message.fields().any(|field| secret::is_secret(&field)))
}

/// Returns the path of a message's type within the module of its package, named the way prost names it.
fn rust_path(message: &MessageDescriptor) -> String {
    let mut path = message.name().to_upper_camel_case();
    let mut parent = message.parent_message();
    while let Some(outer) = parent {
        path = format!("{}::{path}", outer.name().to_snake_case());
        parent = outer.parent_message();
    }
    path
}
