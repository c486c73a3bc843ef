//! The measured machine, without its name.

use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use crate::Result;
use crate::report::Table;

/// Describes the machine; volumes on the disk are in `directory`.
pub(crate) fn describe(directory: &Path) -> Result<Table> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let model = field(&processor, "model name").unwrap_or("unknown");
    let guest =
        field(&processor, "flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let kib: u64 = field(&memory, "MemTotal")
        .and_then(|kib| kib.trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    let mut table = Table::new(["", ""]);
    table.row([
        "processor",
        &format!("{model}{}", if guest { ", virtual" } else { "" }),
    ]);
    table.row(["cores", &available_parallelism()?.to_string()]);
    table.row(["memory", &format!("{} GiB", kib.div_ceil(1 << 20))]);
    table.row([
        "kernel",
        &format!("Linux {}", rustix::system::uname().release().to_string_lossy()),
    ]);
    table.row(["volumes on", &file_system(directory)?]);
    table.row(["load when it began", load.split(' ').next().unwrap_or_default()]);
    table.row([
        "build",
        if cfg!(debug_assertions) {
            "**debug**"
        } else {
            "release"
        },
    ]);
    Ok(table)
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    value.map(str::trim)
}

/// Returns the type of the file system that holds a directory.
fn file_system(directory: &Path) -> Result<String> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let holders = table.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        directory
            .starts_with(point)
            .then_some((point.components().count(), file_system.split(' ').next()?))
    });
    // Of the longest mount points, the last one in the table is the visible one.
    Ok(holders
        .max_by_key(|(depth, _)| *depth)
        .map_or("unknown", |(_, name)| name)
        .to_owned())
}
