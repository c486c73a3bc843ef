//! What is announced on the standard output, and the signals that end the process.

use rustix::process::Signal;

use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{Process, program, program_under};

#[test]
fn a_relative_endpoint_is_announced_by_its_absolute_path() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // Longer with its directories than a socket's path can be.
        let directory = machine.path(&"d".repeat(120));
        std::fs::create_dir(&directory).unwrap();
        let mut flags = machine.flags();
        flags.retain(|flag| !flag.starts_with("--endpoint="));
        flags.splice(0..0, ["serve".to_owned(), "--endpoint=csi.sock".to_owned()]);
        let mut program = program(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        program
            .current_dir(&directory)
            .stdout(std::process::Stdio::piped());
        let mut child = program.spawn().unwrap();
        let mut lines =
            tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(
            line,
            format!("serving on unix://{}/csi.sock", directory.display())
        );
        child.kill().await.unwrap();
    });
}

#[test]
fn a_hangup_stops_gracefully_unless_it_is_ignored() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        assert!(plugin.ends_on(Signal::HUP).await.success());
        assert!(!machine.path("csi.sock").exists());

        let mut flags = machine.flags();
        flags.insert(0, "serve".to_owned());
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let plugin = Process::attempt(
            program_under(&["/usr/bin/nohup"], &flags),
            &machine.path("nohup.log"),
        )
        .await;
        let plugin = plugin.unwrap_or_else(|said| panic!("{said}"));
        let id = rustix::process::Pid::from_raw(plugin.id().cast_signed()).unwrap();
        rustix::process::kill_process(id, Signal::HUP).unwrap();
        plugin.csi.create("data").await;
        plugin.terminate().await;
    });
}

/// Each library costs its pages that are resident.
#[test]
fn the_program_loads_no_library_but_that_of_c_and_the_unwinder() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", plugin.id())).unwrap();
        let files = maps
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().nth(5));
        let names: std::collections::BTreeSet<_> = files
            .filter_map(|file| file.rsplit('/').next()?.split_once(".so"))
            .map(|(name, _)| name)
            .collect();
        let expected = ["ld-linux-x86-64", "ld-linux-aarch64", "libc", "libgcc_s"];
        assert!(names.contains("libc"), "{maps}");
        assert!(names.iter().all(|name| expected.contains(name)), "{names:?}");
        plugin.terminate().await;
    });
}
