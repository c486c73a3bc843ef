//! What other processes put into the plugin's directories and in the place of its files: pipes, devices, directories, links.
//! Each closes only itself and is named; the start waits for none of them; a signal ends it whatever it waits for.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;
use crate::support::process::{program, run};
use crate::support::{PATIENCE, eventually};

fn fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

/// Starts the program without waiting until it serves.
fn begin(arguments: &[String], log: &Path) -> Child {
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let mut program: Command = program(&arguments);
    program.stdout(Stdio::null()).stderr(File::create(log).unwrap());
    program.spawn().unwrap()
}

/// Waits until the process handles a signal itself.
async fn handles(process: &Child, signal: Signal) {
    let status = format!("/proc/{}/status", process.id().unwrap());
    eventually("the process handles the signal", async || {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))
            .unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        (caught >> (signal.as_raw() - 1) & 1 == 1).then_some(())
    })
    .await;
}

async fn end_by(process: &mut Child, signal: Signal) {
    handles(process, signal).await;
    let id = Pid::from_raw(process.id().unwrap().cast_signed()).unwrap();
    kill_process(id, signal).unwrap();
    let ended = timeout(PATIENCE, process.wait())
        .await
        .expect("it ends in time")
        .unwrap();
    assert!(ended.success(), "{ended}");
}

#[test]
fn one_bad_entry_of_the_state_directory_closes_only_itself() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.kill().await;

        let state = &machine.config.node.state_dir;
        let stages = state.join("stages");
        fifo(&stages.join("pipe.json"));
        symlink("/dev/zero", stages.join("zero.json")).unwrap();
        fs::create_dir(stages.join("directory.json")).unwrap();
        File::create(stages.join("large.json"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        for directory in [state, &stages] {
            fs::create_dir(directory.join(".new-abcdef")).unwrap();
            fs::write(directory.join(".new-ABCDEF"), "unfinished").unwrap();
        }
        for name in ["volumes.json", "capacity.json", "node.json"] {
            fs::remove_file(state.join(name)).ok();
            fifo(&state.join(name));
        }

        let plugin = machine.process(&["--list-scope=node"]).await;
        plugin.csi.publish(&usage).await.unwrap();
        plugin.csi.unpublish(&usage).await.unwrap();
        plugin.csi.unstage(&usage).await.unwrap();
        for name in [
            "pipe.json",
            "zero.json",
            "directory.json",
            "large.json",
            ".new-abcdef",
        ] {
            plugin.logged(name).await;
        }
        assert!(!stages.join(".new-ABCDEF").exists());
        plugin.terminate().await;
        for name in ["pipe.json", "zero.json", "directory.json", "large.json"] {
            assert!(stages.join(name).symlink_metadata().is_ok(), "{name} is kept");
        }
    });
}

#[test]
fn what_is_no_file_is_refused_by_name_in_the_place_of_every_file() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let pipe = machine.path("pipe");
        fifo(&pipe);
        let zero = machine.path("zero");
        symlink("/dev/zero", &zero).unwrap();
        for wrong in [pipe, zero, machine.path("")] {
            for flag in ["cluster-cert", "user-cert", "user-key", "node-id-file", "config"] {
                let mut arguments = vec!["serve".to_owned()];
                arguments.extend(machine.flags());
                arguments.retain(|argument| !argument.starts_with("--node-id"));
                arguments.retain(|argument| !argument.starts_with(&format!("--{flag}=")));
                arguments.push(format!("--{flag}={}", wrong.display()));
                let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
                let (status, text) = run(&arguments).await;
                assert_eq!(status.code(), Some(2), "--{flag}: {text}");
                assert!(text.contains("regular file"), "--{flag}: {text}");
                assert!(text.contains(&*wrong.to_string_lossy()), "--{flag}: {text}");
            }
        }
    });
}

#[test]
fn a_signal_ends_a_start_that_waits() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        // A start waits for the process that replaces a socket in the same directory.
        let directory = machine.path("locked");
        fs::create_dir(&directory).unwrap();
        let lock = File::open(&directory).unwrap();
        lock.lock().unwrap();
        let mut arguments = vec!["serve".to_owned()];
        arguments.extend(machine.flags());
        arguments.retain(|argument| !argument.starts_with("--endpoint="));
        arguments.push(format!("--endpoint={}", directory.join("csi.sock").display()));
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            let mut starting = begin(&arguments, &machine.path("start.log"));
            end_by(&mut starting, signal).await;
        }
        assert!(!directory.join("csi.sock").exists());
    });
}

#[test]
fn directories_and_keys_that_other_users_can_change_or_read_are_named() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let exposed = |name: &str, mode: u32| {
            let path = machine.path(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let state = exposed("exposed-state", 0o777);
        let socket = exposed("exposed-socket", 0o1777).join("csi.sock");
        let data = exposed("exposed-data", 0o777);
        std::os::unix::fs::chown(&machine.config.plugin.device_dir, Some(65_534), None).ok();
        let mut arguments = vec!["serve".to_owned()];
        arguments.extend(machine.flags());
        arguments
            .retain(|argument| !argument.starts_with("--endpoint=") && !argument.starts_with("--state-dir="));
        arguments.push(format!("--endpoint={}", socket.display()));
        arguments.push(format!("--state-dir={}", state.display()));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let plugin = crate::support::process::Process::start(arguments, &machine.path("exposed.log")).await;
        for words in [
            "the state_dir",
            "the directory of the endpoint",
            "mode 0777",
            "mode 1777",
        ] {
            plugin.logged(words).await;
        }
        plugin.terminate().await;

        let log = machine.path("embedded.log");
        let arguments = ["embedded".to_owned(), format!("--data-dir={}", data.display())];
        for words in ["the data directory", "could be read by other users"] {
            let mut embedded = begin(&arguments, &log);
            eventually("the warning is logged", async || {
                let text = fs::read_to_string(&log).unwrap();
                (text.contains(words) && text.contains("Flocker serves")).then_some(())
            })
            .await;
            end_by(&mut embedded, Signal::TERM).await;
            let keys: Vec<_> = walk(&data.join("pki"))
                .into_iter()
                .filter(|path| path.ends_with("cluster.key"))
                .collect();
            for key in &keys {
                fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
            }
            assert_eq!(keys.len(), 1);
        }
    });
}

/// Returns the files below a directory.
fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] })
        .collect()
}
