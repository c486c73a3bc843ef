//! Where the commands are run: two nodes, a plugin that has a volume in use on one of them, and stand-ins for orchestrators.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use flocker_embedded::Options;
use flocker_embedded::faults::{AgentState, MachineState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use uuid::Uuid;

use super::page::{blocks, commands};
use super::stand_ins;
use crate::devices::{ext4_of, stop_on_errors, sync};
use crate::kubelet::probes::{PROBES, address, becomes};
use crate::support::csi::Usage;
use crate::support::eventually;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::mounts::only_mount_at;
use crate::support::process::{Process, program_under_test};

/// What a command is expected to do.
pub(super) enum Expected {
    /// It succeeds, and prints this.
    Output(&'static str),
    /// It looks in the log for a text that the plugin can log, and finds it or not.
    InLog(&'static str),
    /// It is a use that the program has. What follows it finds something in the log.
    StandIn,
    /// Marathon is asked to have no instance of an application.
    Marathon,
    /// It is part of a course of its own.
    InItsScene,
}

use Expected::{InItsScene, InLog, Marathon, Output as Prints, StandIn};

/// What is run.
pub(super) const RUN: &[(&str, Expected)] = &[
    ("kubectl -n flocker-csi get pods -o wide", StandIn),
    ("systemctl status flocker-csi-mesos", StandIn),
    ("nomad plugin status PLUGIN", StandIn),
    ("kubectl -n flocker-csi logs POD -c plugin", StandIn),
    ("journalctl -u flocker-csi-mesos", StandIn),
    ("nomad alloc logs -stderr ALLOC", StandIn),
    (
        "kubectl -n flocker-csi logs POD -c plugin | grep volume.id=ID",
        StandIn,
    ),
    ("journalctl -u flocker-csi-mesos | grep volume.id=ID", StandIn),
    ("nomad alloc logs -stderr ALLOC | grep volume.id=ID", StandIn),
    ("kubectl get volumeattachments", StandIn),
    ("nomad volume status VOLUME", StandIn),
    ("kubectl scale statefulset NAME --replicas=0", StandIn),
    (
        r#"curl -X PUT -H 'Content-Type: application/json' http://MARATHON/v2/apps/APP -d '{"instances": 0}'"#,
        Marathon,
    ),
    ("nomad job stop JOB", StandIn),
    ("kubectl -n flocker-csi port-forward POD 29800", StandIn),
    (
        "curl -s http://ADDRESS:PORT/readyz",
        Prints("\nok      flocker: "),
    ),
    (
        "curl -s http://ADDRESS:PORT/metrics | grep flocker_csi_operations_running",
        Prints("# TYPE flocker_csi_operations_running gauge"),
    ),
    (CONNECTION, Prints(r#""node_uuid""#)),
    (
        "kubectl taint node NODE node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
        StandIn,
    ),
    ("nomad volume detach VOLUME NODE", StandIn),
    (RELEASE, InItsScene),
    (
        "grep -shF ID /proc/[0-9]*/mountinfo | cut -d ' ' -f 5 | sort -u",
        Prints("/flocker/ID"),
    ),
    (CHECK, InItsScene),
    (COPY, InItsScene),
    (REPAIR, InItsScene),
    ("curl -s http://ADDRESS:PORT/healthz", Prints("ok")),
    ("systemctl status flocker-dataset-agent", StandIn),
    ("dmesg", Prints("")),
    ("kubectl describe csinode NODE", StandIn),
    (
        "flocker https://control.example.com:4523/v1/state/nodes",
        Prints(r#""uuid""#),
    ),
    (
        "openssl x509 -noout -enddate -in /etc/flocker/plugin.crt",
        Prints("notAfter="),
    ),
    ("journalctl -u flocker-dataset-agent", StandIn),
    (
        "journalctl -u flocker-csi-mesos | grep rpc.method=/csi.v1.Node/NodeStageVolume",
        StandIn,
    ),
    (
        r#"journalctl -u flocker-csi-mesos | grep "is abnormal""#,
        InLog("is abnormal"),
    ),
    (
        r#"journalctl -u flocker-csi-mesos | grep -e "although it is staged on this one" -e "is acquired again""#,
        InLog("although it is staged on this one"),
    ),
    (
        "flocker https://control.example.com:4523/v1/configuration/leases",
        Prints(r#""node_uuid""#),
    ),
    (
        r#"journalctl -u flocker-csi-mesos | grep "neither a record nor a mount""#,
        InLog("neither a record nor a mount"),
    ),
    ("findmnt -S DEVICE", Prints("/flocker/ID")),
    (
        r#"journalctl -u flocker-csi-mesos | grep "were never in the volume""#,
        InLog("were never in the volume"),
    ),
    (
        "df -h /var/lib/flocker-csi; df -i /var/lib/flocker-csi",
        Prints("IFree"),
    ),
    (
        r#"journalctl -u flocker-csi-mesos | grep "cannot be read as a whole""#,
        InLog("cannot be read as a whole"),
    ),
    ("df -h /var/log", Prints("Avail")),
    ("journalctl --disk-usage", StandIn),
    ("kubectl describe node NODE", StandIn),
];

/// What is not run.
pub(super) const NOT_RUN: &[(&str, &str)] = &[(
    "flocker-ca create-api-certificate plugin",
    "a program of Flocker's, which no package has any more",
)];

const CONNECTION: &str = r#"cd /etc/flocker
flocker() { curl -s --cacert cluster.crt --cert plugin.crt --key plugin.key "$@"; }
flocker https://control.example.com:4523/v1/state/nodes
flocker https://control.example.com:4523/v1/configuration/leases
flocker https://control.example.com:4523/v1/state/datasets"#;

const RELEASE: &str = "flocker-csi leases | grep ID
flocker-csi leases release ID --node NODE";

const CHECK: &str = r#"device=$(findmnt -n -o SOURCE /flocker/ID)
systemctl stop flocker-dataset-agent
umount /flocker/ID
e2fsck -f -n "$device""#;

const COPY: &str = r#"dd if="$device" of=/backup/ID.img bs=4M conv=sparse"#;

const REPAIR: &str = r#"e2fsck -f -y "$device"
systemctl start flocker-dataset-agent"#;

/// Two nodes of a Flocker, a plugin on the first with a volume in use, and the stand-ins.
pub(super) struct Scene {
    plugin: Process,
    usage: Usage,
    device: String,
    bin: PathBuf,
    /// What stands on the page, and what stands for it here.
    names: Vec<(String, String)>,
    machine: Machine,
    flocker: Flocker,
}

impl Scene {
    pub(super) async fn start() -> Self {
        // A dead node is soon no longer listed.
        let node_expiry = Some(Duration::from_secs(2));
        let flocker = Flocker::with(|options| Options {
            nodes: 2,
            node_expiry,
            ..options
        })
        .await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.process(&[PROBES]).await;
        let volume = plugin.csi.create("data").await;
        let context = plugin.csi.attach(volume, machine.node()).await;
        let usage = machine.usage("data", volume, &context);
        plugin.csi.stage(&usage).await.unwrap();
        plugin.csi.publish(&usage).await.unwrap();
        let device = only_mount_at(&flocker.mount_of(1, volume)).source;
        let probes = address(&plugin).await;
        becomes(probes, 200, "ready\n").await;
        let bin = machine.path("bin");
        stand_ins::make(&bin);
        symlink(program_under_test(), bin.join("flocker-csi")).unwrap();
        let text = |path: &Path| path.display().to_string();
        fs::create_dir(machine.path("backup")).unwrap();
        let names = [
            ("ADDRESS:PORT", probes.to_string()),
            (
                "control.example.com:4523",
                flocker.embedded().address().to_string(),
            ),
            ("/etc/flocker", text(flocker.embedded().certificates())),
            ("/var/lib/flocker-csi", text(&machine.config.node.state_dir)),
            ("/flocker/", format!("{}/", text(&machine.config.node.mount_root))),
            ("/backup/", format!("{}/", text(&machine.path("backup")))),
            ("DEVICE", device.clone()),
        ];
        Self {
            names: names.map(|(name, here)| (name.to_owned(), here)).into(),
            plugin,
            usage,
            device,
            bin,
            machine,
            flocker,
        }
    }

    pub(super) async fn stop(self) {
        self.plugin.terminate().await;
    }

    /// Returns a text of the page as it is for a volume here.
    fn here(&self, text: &str, volume: Uuid) -> String {
        let mut here = text.to_owned();
        for (name, value) in &self.names {
            here = here.replace(name, value);
        }
        // A word of its own, or a part of a path, and not the end of an option such as `--kind`.
        here.split_inclusive(|character: char| !character.is_ascii_uppercase())
            .map(|word| match word.strip_prefix("ID") {
                Some(rest) if rest.chars().all(|character| !character.is_ascii_uppercase()) => {
                    format!("{volume}{rest}")
                }
                _ => word.to_owned(),
            })
            .collect()
    }

    /// Runs commands of the page on a volume, in one shell.
    async fn run(&self, commands: &str, volume: Uuid) -> Output {
        fs::write(self.bin.join("prints"), self.plugin.log()).unwrap();
        let script = self.here(commands, volume);
        let path = format!("{}:{}", self.bin.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).env("PATH", path).kill_on_drop(true);
        // Where the plugin's settings are the environment's, those of the commands are so too.
        for flag in self.machine.flags() {
            let (name, value) = flag.trim_start_matches("--").split_once('=').unwrap();
            shell.env(
                format!("FLOCKER_CSI_{}", name.to_uppercase().replace('-', "_")),
                value,
            );
        }
        shell.output().await.unwrap()
    }

    /// Runs a command of the page, and returns what it prints. Each stand-in that was called has such a use.
    async fn succeeds(&self, command: &str, volume: Uuid) -> String {
        assert!(commands().iter().any(|one| one == command), "{command}");
        // What asks Flocker is defined once on the page.
        let flocker = CONNECTION.lines().take(2).collect::<Vec<_>>().join("\n") + "\n";
        let defined = if command.starts_with("flocker ") {
            flocker
        } else {
            String::new()
        };
        let output = self.run(&format!("{defined}{command}"), volume).await;
        for call in stand_ins::calls(&self.bin) {
            let (program, arguments) = call.split_first().unwrap();
            stand_ins::check(program, arguments);
        }
        let printed = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success(),
            "{command}: {}\n{printed}{errors}",
            output.status
        );
        printed
    }

    pub(super) async fn prints(&self, command: &str, part: &str) {
        let volume = self.usage.dataset();
        let printed = self.succeeds(command, volume).await;
        let part = self.here(part, volume);
        assert!(
            printed.contains(&part),
            "{command} prints no {part:?}:\n{printed}"
        );
    }

    /// Runs a use of a stand-in; with a pipe, something is found in the log.
    pub(super) async fn is_accepted(&self, command: &str) {
        let printed = self.succeeds(command, self.usage.dataset()).await;
        let finds = command.contains("| grep") || command.contains("logs") || command.contains(" -u ");
        assert_eq!(finds, !printed.is_empty(), "{command}:\n{printed}");
    }

    /// Runs a search in the log for a text that is there only after a fault: that the plugin logs it is seen in its source.
    pub(super) async fn looks_for(&self, command: &str, text: &str) {
        assert!(command.contains(text), "{command}");
        assert!(source().contains(text), "no text of the program has {text:?}");
        let output = self.run(command, self.usage.dataset()).await;
        for call in stand_ins::calls(&self.bin) {
            stand_ins::check(&call[0], &call[1..]);
        }
        assert!(
            output.stderr.is_empty() && output.status.code() <= Some(1),
            "{command}: {output:?}"
        );
    }

    /// Runs the request to Marathon against what reads one request.
    pub(super) async fn scales_down(&mut self, command: &str) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        self.names
            .push(("MARATHON".to_owned(), listener.local_addr().unwrap().to_string()));
        let answer = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(br#"{"instances": 0}"#) {
                let mut part = [0; 1024];
                let length = client.read(&mut part).await.unwrap();
                assert!(length > 0, "{}", String::from_utf8_lossy(&request));
                request.extend_from_slice(&part[..length]);
            }
            client
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
                .await
                .unwrap();
            String::from_utf8(request).unwrap()
        };
        let (printed, request) = tokio::join!(self.succeeds(command, self.usage.dataset()), answer);
        assert_eq!(printed, "{}");
        assert!(request.starts_with("PUT /v2/apps/APP HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains("\r\nContent-Type: application/json\r\n"),
            "{request}"
        );
    }

    /// Has a node die that holds a lease, and releases that as the page says.
    pub(super) async fn releases_the_lease_of_a_dead_node(&self) {
        let csi = &self.plugin.csi;
        let volume = csi.create("elsewhere").await;
        csi.attach(volume, self.flocker.node(2)).await;
        let faults = self.flocker.embedded().faults();
        faults.change(|plan| {
            plan.dead_nodes_known = true;
            plan.nodes.entry(2).or_default().machine = MachineState::Off;
        });
        faults.until_in_force().await;
        assert!(commands().iter().any(|one| one == RELEASE));
        let node = self.flocker.node(2).to_string();
        // Without a terminal it does not ask, and the test does not wait for the grace.
        let command = RELEASE.replace("NODE", &format!("{node} --force --yes"));
        let output = self.run(&command, volume).await;
        let (printed, errors) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(output.status.success(), "{printed}{errors}");
        assert!(
            printed.contains(&volume.to_string()),
            "the lease is listed:\n{printed}{errors}"
        );
        assert_eq!(self.flocker.leaseholder(volume).await, None);
        csi.attach(volume, self.machine.node()).await;
        csi.detach(volume, self.machine.node()).await;
    }

    /// Damages the file system of the volume in use, and repairs it as the page says.
    pub(super) async fn repairs_a_file_system(&self) {
        let (csi, usage, volume) = (&self.plugin.csi, &self.usage, self.usage.dataset());
        for (name, content) in [("precious", "data"), ("lost", "more")] {
            fs::write(usage.target.join(name), content).unwrap();
        }
        assert!(sync(&usage.target));
        stop_on_errors(&self.flocker.mount_of(1, volume));
        let numbers = only_mount_at(&usage.target).device;
        fs::write(ext4_of(&numbers).join("trigger_fs_error"), "damaged on purpose").unwrap();
        // And damage that a check finds: a name of a file that no longer exists.
        let cleared = std::process::Command::new("debugfs")
            .args(["-w", "-R", "clri /lost", &self.device])
            .output()
            .unwrap();
        assert!(cleared.status.success(), "{cleared:?}");
        self.plugin
            .logged(&format!("Volume {volume} is abnormal: "))
            .await;

        // Step 1.
        csi.unpublish(usage).await.unwrap();
        csi.unstage(usage).await.unwrap();
        csi.detach(volume, self.machine.node()).await;
        let left = self
            .succeeds(
                "grep -shF ID /proc/[0-9]*/mountinfo | cut -d ' ' -f 5 | sort -u",
                volume,
            )
            .await;
        assert_eq!(left.trim(), self.here("/flocker/ID", volume), "one path");

        // Steps 2 and 3, in one shell, with the status of each line.
        let statuses = |block: &str| -> String {
            let lines = block.lines().map(|line| {
                format!(
                    "{line}\nprintf '\\nstatus %s of %s\\n' $? '{}'\n",
                    first_words(line)
                )
            });
            lines.collect::<Vec<_>>().concat()
        };
        let [_, _, check, repair] = blocks()[..] else {
            panic!("{:?}", blocks())
        };
        assert_eq!((check, repair), (CHECK, REPAIR));
        let script: String = [CHECK, COPY, REPAIR].map(statuses).concat();
        let (output, ()) = tokio::join!(self.run(&script, volume), self.serve_services());
        let printed = String::from_utf8(output.stdout).unwrap();
        for status in [
            "status 0 of device=$(findmnt",
            "status 0 of systemctl stop",
            "status 0 of umount",
            "status 4 of e2fsck -f -n",
            "status 0 of dd",
            "status 1 of e2fsck -f -y",
            "status 0 of systemctl start",
        ] {
            let is_there = printed.lines().any(|line| line.starts_with(status));
            assert!(
                is_there,
                "no {status:?} in\n{printed}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        for call in stand_ins::calls(&self.bin) {
            stand_ins::check(&call[0], &call[1..]);
        }
        let copy = self.machine.path("backup").join(format!("{volume}.img"));
        assert_eq!(fs::metadata(copy).unwrap().len(), 64 << 20);

        // Step 4.
        csi.attach(volume, self.machine.node()).await;
        csi.stage(usage).await.unwrap();
        csi.publish(usage).await.unwrap();
        assert_eq!(fs::read_to_string(usage.target.join("precious")).unwrap(), "data");
        fs::write(usage.target.join("after"), "writable again").unwrap();
        let condition = csi.stats(usage).await.unwrap().volume_condition.unwrap();
        assert!(!condition.abnormal, "{}", condition.message);
        csi.unpublish(usage).await.unwrap();
        csi.unstage(usage).await.unwrap();
    }

    /// Stops the agent of the node when the page says so, and starts it again.
    async fn serve_services(&self) {
        let asked = self.bin.join("asked");
        let faults = self.flocker.embedded().faults();
        for state in [AgentState::Stopped, AgentState::Running] {
            eventually("the agent is to be stopped or started", async || {
                fs::remove_file(&asked).ok()
            })
            .await;
            faults.change(|plan| plan.nodes.entry(1).or_default().agent = state);
            faults.until_in_force().await;
            fs::write(self.bin.join("done"), "").unwrap();
        }
    }
}

fn first_words(line: &str) -> String {
    line.split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
        .replace('"', "")
}

/// Returns the texts of the program: its source, with strings of several lines as one.
fn source() -> String {
    let mut text = String::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let source = fs::read_to_string(path).unwrap();
                let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
                for line in code {
                    if let Some(continued) = line.trim().strip_suffix('\\') {
                        text.push_str(continued);
                    } else {
                        text.push_str(line.trim());
                        text.push('\n');
                    }
                }
            }
        }
    }
    text
}
