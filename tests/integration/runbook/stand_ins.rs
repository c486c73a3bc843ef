//! Programs that take the place of an orchestrator's or of the service manager's, and the arguments that those have.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A use of a program: its words, where `_` stands for any, and its options.
struct Usage {
    program: &'static str,
    words: &'static [&'static str],
    /// Those with a value end in `=`.
    options: &'static [&'static str],
}

/// What the page uses of each program, as its own help has it: `kubectl` 1.32 to 1.37, `systemctl` and `journalctl` of systemd
/// 252, `nomad` 2.0.
const USAGES: &[Usage] = &[
    Usage {
        program: "kubectl",
        words: &["get", "pods"],
        options: &["-n=", "-o="],
    },
    Usage {
        program: "kubectl",
        words: &["get", "volumeattachments"],
        options: &["-o="],
    },
    Usage {
        program: "kubectl",
        words: &["logs", "_"],
        options: &["-n=", "-c=", "--previous"],
    },
    Usage {
        program: "kubectl",
        words: &["port-forward", "_", "_"],
        options: &["-n="],
    },
    Usage {
        program: "kubectl",
        words: &["describe", "_", "_"],
        options: &["-n="],
    },
    Usage {
        program: "kubectl",
        words: &["scale", "_", "_"],
        options: &["-n=", "--replicas="],
    },
    Usage {
        program: "kubectl",
        words: &["taint", "node", "_", "_"],
        options: &[],
    },
    Usage {
        program: "systemctl",
        words: &["status", "_"],
        options: &[],
    },
    Usage {
        program: "systemctl",
        words: &["start", "_"],
        options: &[],
    },
    Usage {
        program: "systemctl",
        words: &["stop", "_"],
        options: &[],
    },
    Usage {
        program: "journalctl",
        words: &[],
        options: &["-u=", "--disk-usage"],
    },
    Usage {
        program: "nomad",
        words: &["plugin", "status", "_"],
        options: &[],
    },
    Usage {
        program: "nomad",
        words: &["alloc", "logs", "_"],
        options: &["-stderr"],
    },
    Usage {
        program: "nomad",
        words: &["volume", "status", "_"],
        options: &[],
    },
    Usage {
        program: "nomad",
        words: &["volume", "detach", "_", "_"],
        options: &[],
    },
    Usage {
        program: "nomad",
        words: &["job", "stop", "_"],
        options: &[],
    },
];

impl Usage {
    /// Whether these arguments are such a use.
    fn accepts(&self, arguments: &[String]) -> bool {
        let mut words = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            if !argument.starts_with('-') {
                words.push(argument.as_str());
                continue;
            }
            let name = argument
                .split_once('=')
                .map_or(argument.as_str(), |(name, _)| name);
            let takes = |suffix: &str| {
                self.options
                    .iter()
                    .any(|option| option.strip_suffix(suffix) == Some(name))
            };
            let is_accepted = match argument.contains('=') {
                true => takes("="),
                false if takes("=") => rest.next().is_some(),
                false => self.options.contains(&name),
            };
            if !is_accepted {
                return false;
            }
        }
        words.len() == self.words.len()
            && words
                .iter()
                .zip(self.words)
                .all(|(word, expected)| *expected == "_" || word == expected)
    }
}

/// Panics unless the program has such a use.
pub(super) fn check(program: &str, arguments: &[String]) {
    let mut usages = USAGES.iter().filter(|usage| usage.program == program);
    assert!(
        usages.any(|usage| usage.accepts(arguments)),
        "{program} has no such use: {arguments:?}"
    );
    if program == "kubectl" && arguments.first().is_some_and(|word| word == "taint") {
        let taint = &arguments[3];
        let (key, rest) = taint.split_once('=').expect("KEY=VALUE:EFFECT");
        let effect = rest.split_once(':').expect("KEY=VALUE:EFFECT").1;
        assert_eq!(
            key, "node.kubernetes.io/out-of-service",
            "the kubelet's name for it"
        );
        assert!(["NoExecute", "NoSchedule"].contains(&effect), "{taint}");
    }
}

/// Makes the programs in a directory. Each notes its arguments in the file `calls` beside it, and prints the file `prints`; what
/// changes a service waits until the test has done so.
pub(super) fn make(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    for program in ["kubectl", "systemctl", "journalctl", "nomad"] {
        let path = directory.join(program);
        let script = r#"#!/bin/bash
here=$(dirname -- "$0")
{ printf '%s\x1f' "${0##*/}" "$@"; printf '\n'; } >>"$here/calls"
case "${0##*/} $*" in
"systemctl start "* | "systemctl stop "*)
    printf '%s\n' "$1" >"$here/asked"
    until [[ -e $here/done ]]; do sleep 0.05; done
    rm -- "$here/done"
    ;;
*logs* | "journalctl -u "*) cat -- "$here/prints" ;;
esac
"#;
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }
}

/// Checks the options against the help of the real programs, as far as this machine has them.
pub(super) fn check_against_real_programs() {
    for Usage {
        program,
        words,
        options,
    } in USAGES
    {
        let verb = words
            .first()
            .copied()
            .into_iter()
            .filter(|_| *program == "kubectl");
        let help = |arguments: &[&str]| Command::new(program).args(arguments).output();
        let Ok(of_verb) = help(&verb.chain(["--help"]).collect::<Vec<_>>()) else {
            eprintln!("{program} is not on this machine: only the table of this test is compared");
            continue;
        };
        let of_all = help(&["options"]).map(|output| output.stdout).unwrap_or_default();
        let text = [of_verb.stdout, of_all].concat();
        let text = String::from_utf8_lossy(&text);
        for option in *options {
            let name = option.trim_end_matches('=');
            let is_listed = text.lines().any(|line| {
                let mut words = line.split([' ', ',', '=', ':']);
                words.any(|word| word == name)
            });
            assert!(is_listed, "{program} {words:?} has no {name}");
        }
    }
}

/// Returns the calls so far, and forgets them.
pub(super) fn calls(directory: &Path) -> Vec<Vec<String>> {
    let noted = fs::read_to_string(directory.join("calls")).unwrap_or_default();
    fs::remove_file(directory.join("calls")).ok();
    let words = |line: &str| line.split_terminator('\x1f').map(str::to_owned).collect();
    noted.lines().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(line: &str) -> bool {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (program, arguments) = words.split_first().unwrap();
        let mut usages = USAGES.iter().filter(|usage| usage.program == program);
        !usages.any(|usage| usage.accepts(arguments))
    }

    #[test]
    fn a_use_that_the_program_does_not_have_is_refused() {
        for refused in [
            "kubectl log POD",
            "kubectl logs POD -p plugin",
            "kubectl logs POD --container",
            "kubectl scale statefulset NAME --replica=0",
            "kubectl get pods -o",
            "systemctl halt",
            "journalctl flocker-csi",
            "nomad alloc logs --stderr ALLOC",
            "nomad volume detach VOLUME",
        ] {
            assert!(is_refused(refused), "{refused}");
        }
        assert!(!is_refused("kubectl logs POD -c plugin --previous"));
    }
}
