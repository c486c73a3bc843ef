//! Checks of the parsers of settings for any input.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;

use flocker_client::ControlService;
use rustix::fs::{MemfdFlags, memfd_create};

use super::Endpoint;
use super::layers::{Environment, Refusal};
use super::secrets::shown;
use super::{file, values};
use crate::commands::cli::Cli;
use crate::flocker::provisioning::Pool;
use crate::volume::parse_size;

/// Parses any text as the value of every setting with a form.
///
/// # Panics
/// If an accepted value changes when it is displayed and parsed again, or is outside of the bounds of the setting.
pub fn setting(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    match text.parse::<Endpoint>() {
        Ok(endpoint) => assert_eq!(endpoint.to_string().parse(), Ok(endpoint)),
        Err(error) => {
            let shown = format!("{:?}", shown(text));
            assert!(error.to_string().starts_with(&shown), "{error}");
        }
    }
    if let Ok(service) = text.parse::<ControlService>() {
        assert_eq!(service.to_string().parse(), Ok(service));
    }
    if let Ok(size) = parse_size(text) {
        assert!(i64::try_from(size).is_ok());
        assert_eq!(parse_size(&size.to_string()), Ok(size));
    }
    for size in [values::default_size(text), values::allocation_unit(text)]
        .into_iter()
        .flatten()
    {
        assert!(size > 0 && size.is_multiple_of(1024), "{size}");
    }
    if let Ok(pool) = text.parse::<Pool>() {
        assert!(i64::try_from(pool.capacity).is_ok());
        assert_ne!(pool.profile.as_deref(), Some(""));
    }
    if let Ok(name) = values::driver_name(text) {
        assert!((2..=63).contains(&name.len()));
    }
    if let Ok(node) = values::node_id(text) {
        assert_eq!(values::node_id(&node.to_string()), Ok(node));
    }
    for refusal in [
        values::namespace(text).err(),
        values::server_name(text).err(),
        values::duration(text).err(),
        values::count(text).err(),
        values::limit(text).err(),
        values::log_filter(text).err(),
        values::http_address(text).err(),
        values::socket_path(text).err(),
    ] {
        assert!(refusal.is_none_or(|refusal| refusal.starts_with("expected ")));
    }
}

/// Parses any text as the configuration file of `serve`.
///
/// # Panics
/// If a refusal does not name the file and a line of it.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let lines = text.split('\n').count();
    for entry in file::parse(text).into_iter().flatten() {
        assert!((1..=lines).contains(&entry.line), "{entry:?}");
    }
    let memory = memfd_create("configuration", MemfdFlags::CLOEXEC).expect("a file in memory can be created");
    let mut memory = File::from(memory);
    memory.write_all(bytes).expect("a file in memory can be written");
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let arguments = [
        "flocker-csi",
        "serve",
        "--control-service=https://10.0.0.1",
        "--config",
        &path,
    ];
    match Cli::read(&arguments.map(OsString::from), &Environment::new()) {
        Ok(_) => {}
        Err(Refusal::Settings(problems)) => {
            assert!(!problems.is_empty());
            for problem in problems {
                let place = problem.strip_prefix(&format!("{path}, line "));
                let line = place.and_then(|place| place.split_once(": ")?.0.parse().ok());
                assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{problem}");
            }
        }
        Err(Refusal::CommandLine(error)) => panic!("the file was parsed as flags: {error}"),
    }
}
