//! Makes the program smaller, orders its code, and states the commit that it is built from.

use std::env;
use std::path::Path;
use std::process::Command;

/// The variable that names the commit where no repository is at hand, as in the build of an image. It has not the prefix of
/// settings: Cargo passes it on to tests, whose plugins would warn of it.
const COMMIT: &str = "BUILD_COMMIT";
/// The script for the linker.
const CODE_ORDER: &str = "code-order.ld";
/// How many digits of a commit are shown.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Relocations take a megabyte of the program, which every start reads and keeps resident. They are packed in a form that the
    // loaders of glibc 2.36 and later read (`DT_RELR`).
    if env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        order_code();
    }
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let commit = env::var(COMMIT).ok().or_else(commit_of_release);
    let commit = commit.filter(|commit| is_commit(commit));
    let shown = commit.as_deref().and_then(|commit| commit.get(..DIGITS));
    println!("cargo::rustc-env={COMMIT}={}", shown.unwrap_or("unknown"));
}

/// Keeps the code that an idle plugin does not run apart from what it does. The kernel maps 64 KiB around what is run, and a
/// plugin that waits would have nearly all of the program resident.
fn order_code() {
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // mold has no such scripts.
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    if let Some(package) = env::var_os("CARGO_MANIFEST_DIR")
        && is_release
        && !flags.contains("mold")
    {
        println!("cargo::rerun-if-changed={CODE_ORDER}");
        let script = Path::new(&package).join(CODE_ORDER);
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    }
}

fn is_commit(text: &str) -> bool {
    text.len() >= DIGITS && text.chars().all(|character| character.is_ascii_hexdigit())
}

/// Returns the commit that is checked out, for a release. Other builds do not name theirs: each commit would build the whole
/// package again.
fn commit_of_release() -> Option<String> {
    if env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        return None;
    }
    let package = env::var_os("CARGO_MANIFEST_DIR")?;
    let package = Path::new(&package);
    // The sources may be a copy that lies in another repository.
    let top = git(package, &["rev-parse", "--show-toplevel"])?;
    if Path::new(&top).canonicalize().ok()? != package.canonicalize().ok()? {
        return None;
    }
    // What changes with the commit. Cargo runs this again and again for a file that does not exist.
    let head = git(package, &["symbolic-ref", "--quiet", "HEAD"]);
    for name in ["HEAD", "logs/HEAD", "packed-refs"]
        .into_iter()
        .chain(head.as_deref())
    {
        if let Some(path) = git(package, &["rev-parse", "--git-path", name])
            && package.join(&path).exists()
        {
            println!("cargo::rerun-if-changed={}", package.join(path).display());
        }
    }
    git(package, &["rev-parse", "HEAD"])
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let ran = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(arguments)
        .output()
        .ok()
        .filter(|ran| ran.status.success())?;
    let text = String::from_utf8(ran.stdout).ok()?;
    Some(text.trim_end().to_owned())
}
