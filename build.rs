//! Makes the program smaller: relocations take a megabyte of it, which every start reads and keeps resident.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // They are packed in a form that the loaders of glibc 2.36 and later read (`DT_RELR`).
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
