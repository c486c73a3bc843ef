//! Files of systemd: the unit of the plugin, and its rules for temporary files.

use super::report::{Report, is_absolute};

/// Directives that give a service a mount namespace of its own, or a view of the file system that is not the host's.
pub(super) const HIDING: [&str; 53] = [
    "BindLogSockets",
    "BindPaths",
    "BindReadOnlyPaths",
    "DynamicUser",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImagePolicy",
    "ExtensionImages",
    "IPCNamespacePath",
    "ImportCredential",
    "InaccessibleDirectories",
    "InaccessiblePaths",
    "JoinsNamespaceOf",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "LogNamespace",
    "MountAPIVFS",
    "MountFlags",
    "MountImagePolicy",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "PAMName",
    "PrivateBPF",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyDirectories",
    "ReadOnlyPaths",
    "ReadWriteDirectories",
    "ReadWritePaths",
    "RootDirectory",
    "RootEphemeral",
    "RootImage",
    "RootImageOptions",
    "SetCredential",
    "SetCredentialEncrypted",
    "TemporaryFileSystem",
    "UserNamespacePath",
];

/// Directives that the unit may have.
const KNOWN: [(&str, &[&str]); 3] = [
    (
        "Unit",
        &["After", "Before", "Description", "Documentation", "Wants"],
    ),
    (
        "Service",
        &[
            "CapabilityBoundingSet",
            "DeviceAllow",
            "DevicePolicy",
            "ExecStart",
            "FileDescriptorStoreMax",
            "KeyringMode",
            "LimitCORE",
            "LockPersonality",
            "MemoryDenyWriteExecute",
            "NoNewPrivileges",
            "NotifyAccess",
            "OOMScoreAdjust",
            "Restart",
            "RestartSec",
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "RestrictRealtime",
            "RuntimeDirectory",
            "RuntimeDirectoryMode",
            "SystemCallArchitectures",
            "SystemCallErrorNumber",
            "SystemCallFilter",
            "TimeoutStopSec",
            "Type",
            "UMask",
        ],
    ),
    ("Install", &["WantedBy"]),
];

/// A unit.
#[derive(Default)]
pub(super) struct Unit(Vec<(String, String, String)>);

impl Unit {
    /// Parses a unit, and reports every line that it must not have.
    pub(super) fn read(report: &mut Report, text: &str) -> Self {
        let mut unit = Self::default();
        let mut section = String::new();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let Some((directive, value)) = line.split_once('=') else {
                report.refuse(line, "this is no Directive=value");
                continue;
            };
            let known = KNOWN.iter().find(|(name, _)| *name == section);
            if HIDING.contains(&directive) {
                report.refuse(
                    directive,
                    "it hides the mounts of the plugin from the host, so that tasks lose what they write",
                );
            } else if !known.is_some_and(|(_, known)| known.contains(&directive)) {
                report.refuse(
                    directive,
                    format!("it is not known to be harmless in [{section}]"),
                );
            }
            unit.0
                .push((section.clone(), directive.to_owned(), value.to_owned()));
        }
        unit
    }

    pub(super) fn check(&self, report: &mut Report) {
        for (section, directive, part) in [
            ("Unit", "Before", "mesos-slave.service"),
            ("Unit", "Before", "mesos-agent.service"),
            ("Service", "Restart", "always"),
            ("Service", "LimitCORE", "0"),
            ("Service", "RuntimeDirectory", ""),
            ("Install", "WantedBy", "multi-user.target"),
        ] {
            let found = self
                .get(section, directive)
                .is_some_and(|value| part.is_empty() || value.split(' ').any(|word| word == part));
            report.require(found, directive, format!("{part} is needed here"));
        }
        let command = self.command();
        report.require(
            command.first().is_some_and(|program| is_absolute(program)),
            "ExecStart",
            "it begins with the absolute path of the program",
        );
        report.require(
            command.get(1).is_some_and(|command| command == "serve"),
            "ExecStart",
            "the plugin is run by the command serve",
        );
    }

    pub(super) fn get(&self, section: &str, directive: &str) -> Option<&str> {
        let mut found = self
            .0
            .iter()
            .filter(|(at, name, _)| at == section && name == directive);
        found.next_back().map(|(_, _, value)| value.as_str())
    }

    /// Returns the program and its arguments.
    pub(super) fn command(&self) -> Vec<String> {
        let line = self.get("Service", "ExecStart").unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect()
    }
}

/// Checks a file of tmpfiles.d, and returns the directories that it creates.
pub(super) fn check_tmpfiles(report: &mut Report, text: &str) -> Vec<String> {
    let mut made = Vec::new();
    let mut spared = false;
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["x", "/tmp/mesos-csi-*"] => spared = true,
            ["d", path, "0755", "root", "root", "-"] if is_absolute(path) => made.push((*path).to_owned()),
            _ => report.refuse(
                line,
                "expected x /tmp/mesos-csi-*, or d PATH 0755 root root - (with an age, files in it would be deleted)",
            ),
        }
    }
    report.require(
        spared,
        "x",
        "nothing keeps /tmp/mesos-csi-* from being cleaned up",
    );
    made
}
