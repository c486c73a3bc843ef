//! A log that cannot be written: its disk is full, its reader is gone or does not read. Calls, the start and the stop must go
//! on, and the log has to say how many lines it lost once it can be written again.

use host_fs::mount::testing::unmount;
use std::fs::{self, OpenOptions};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program};

/// More lines than a pipe of one page holds.
const CALLS: usize = 60;

/// Runs a plugin whose standard error is `stderr`.
async fn plugin(machine: &Machine, stderr: impl Into<Stdio>) -> Process {
    let mut flags = machine.flags();
    flags.insert(0, "serve".to_owned());
    let program = program(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let started = Process::logging_to(stderr, program, Path::new("")).await;
    started.unwrap_or_else(|said| panic!("it ended: {said}"))
}

/// Calls that each log a line.
async fn calls(plugin: &Process) {
    for number in 0..CALLS {
        plugin.csi.create(&format!("v{}", number % 3)).await;
    }
}

/// Asserts that a volume lives its life while the log cannot be written, and that the plugin stops gracefully.
async fn serves_and_stops(machine: &Machine, plugin: Process) {
    let volume = plugin.csi.create("data").await;
    let context = plugin.csi.attach(volume, machine.node()).await;
    let usage = machine.usage("data", volume, &context);
    plugin.csi.stage(&usage).await.unwrap();
    plugin.csi.publish(&usage).await.unwrap();
    plugin.csi.unpublish(&usage).await.unwrap();
    plugin.csi.unstage(&usage).await.unwrap();
    plugin.csi.detach(volume, machine.node()).await;
    plugin.csi.delete(volume).await.unwrap();
    plugin.terminate().await;
}

/// Returns a pipe in which only a page is free.
fn nearly_full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'\n'; 15 << 12]).unwrap();
    (reader, writer)
}

#[test]
fn a_log_on_a_device_that_is_always_full_stops_nothing() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let plugin = plugin(&machine, full).await;
        serves_and_stops(&machine, plugin).await;
    });
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let (reader, writer) = nearly_full_pipe();
        let plugin = plugin(&machine, writer).await;
        drop(reader);
        serves_and_stops(&machine, plugin).await;
    });
}

#[test]
fn a_log_that_is_never_read_stops_nothing() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let (_reader, writer) = nearly_full_pipe();
        let plugin = plugin(&machine, writer).await;
        calls(&plugin).await;
        serves_and_stops(&machine, plugin).await;
    });
}

#[test]
fn a_journal_that_does_not_read_stops_nothing() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let (_reader, mut writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[b'x'; 4096]).is_ok() {}
        writer.set_nonblocking(false).unwrap();
        let plugin = plugin(&machine, OwnedFd::from(writer)).await;
        serves_and_stops(&machine, plugin).await;
    });
}

#[test]
fn a_log_that_is_read_again_says_how_many_lines_it_lost() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let (mut reader, writer) = nearly_full_pipe();
        let plugin = plugin(&machine, writer).await;
        calls(&plugin).await;
        let reading = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        plugin.csi.create("again").await;
        serves_and_stops(&machine, plugin).await;
        let log = reading.await.unwrap().unwrap();
        assert!(log.contains("log lines before this one were lost"), "{log}");
        assert!(log.contains("log_lines_lost"), "the registry has it too: {log}");
    });
}

#[test]
fn a_log_on_a_full_disk_stops_nothing_and_goes_on_when_there_is_room() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let disk = machine.path("log-disk");
        fs::create_dir(&disk).unwrap();
        let size = Some(c"size=64k".to_owned());
        rustix::mount::mount(
            "none",
            &disk,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            size.as_deref(),
        )
        .unwrap();
        let log = disk.join("log");
        let file = OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let filler = disk.join("filler");
        while OpenOptions::new()
            .create(true)
            .append(true)
            .open(&filler)
            .and_then(|mut file| file.write_all(&[0; 4096]))
            .is_ok()
        {}
        let plugin = plugin(&machine, file).await;
        calls(&plugin).await;
        fs::remove_file(&filler).unwrap();
        eventually("the log goes on", async || {
            plugin.csi.create("again").await;
            let log = fs::read_to_string(&log).unwrap();
            log.contains("log lines before this one were lost").then_some(())
        })
        .await;
        serves_and_stops(&machine, plugin).await;
        unmount(&disk);
    });
}
