//! The syntax of csc's command line.

use std::collections::HashMap;
use std::time::Duration;

use csi_proto::v1::VolumeCapability;
use csi_proto::v1::volume_capability::access_mode::Mode;
use csi_proto::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

use crate::commands::{COMMANDS, Command, GLOBAL_FLAGS, Operands, Rpc};

/// The build of csc. Both have the same commands, but support different versions of CSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// rexray's, the original: CSI 1.2.
    Rexray,
    /// dell's, which is still maintained: CSI 1.11.
    Dell,
}

/// The type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text,
    Number,
    Duration,
    /// `k=v,k=v`
    Pairs,
    /// `MODE,TYPE[,FSTYPE,FLAGS]`
    Capability,
    /// None: the flag is a switch.
    Switch,
}

/// A flag, by its long name and the letter it has, if any.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) letter: Option<char>,
    pub(crate) value: Value,
}

/// A command line that csc would run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Invocation {
    pub(crate) rpc: Rpc,
    pub(crate) build: Build,
    /// The operands of the command: names, ids, paths.
    pub(crate) operands: Vec<String>,
    flags: Vec<(&'static str, String)>,
}

impl Invocation {
    /// Parses a command line without the name of the program.
    pub(crate) fn parse<S: AsRef<str>>(build: Build, words: &[S]) -> Result<Self, String> {
        let (flags, operands) = split(words)?;
        let mut operands = operands.into_iter();
        let group = operands.next().ok_or("a command is missing")?;
        let name = operands
            .next()
            .ok_or_else(|| format!("a command of {group} is missing"))?;
        let command = Command::find(&group, &name)?;
        let known = |flag: &&'static Flag| {
            GLOBAL_FLAGS
                .iter()
                .chain(command.flags)
                .any(|other| other.name == flag.name)
        };
        let mut given = Vec::new();
        for (flag, value) in flags {
            if !known(&flag) {
                return Err(format!("unknown flag: {} of {group} {name}", flag.name));
            }
            check(build, flag, &value)?;
            given.push((flag.name, value));
        }
        let operands: Vec<_> = operands.collect();
        let fits = match command.operands {
            Operands::None => operands.is_empty(),
            Operands::Some => !operands.is_empty(),
            Operands::VolumeAndPath => operands.len() == 2,
        };
        if !fits {
            return Err(format!(
                "{group} {name} does not take {} arguments",
                operands.len()
            ));
        }
        let stats = |operand: &String| (2..=3).contains(&operand.split(':').count());
        if command.rpc == Rpc::Stats && !operands.iter().all(stats) {
            return Err("node stats takes ID:PATH or ID:PATH:STAGING".to_owned());
        }
        Ok(Self {
            rpc: command.rpc,
            build,
            operands,
            flags: given,
        })
    }

    /// Returns the last value of a flag.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let mut set = self.flags.iter().rev().filter(|(flag, _)| *flag == name);
        set.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn string(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_owned()
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.text(name)
            .map_or(0, |value| value.parse().expect("it was checked"))
    }

    pub(crate) fn switch(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(crate) fn timeout(&self) -> Duration {
        let timeout = self.text("timeout").and_then(duration);
        timeout.unwrap_or(Duration::from_secs(60))
    }

    /// Returns all pairs of a flag that may be repeated.
    pub(crate) fn pairs(&self, name: &str) -> HashMap<String, String> {
        let set = self.flags.iter().filter(|(flag, _)| *flag == name);
        set.flat_map(|(_, value)| value.split(','))
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    pub(crate) fn capabilities(&self) -> Vec<VolumeCapability> {
        let set = self.flags.iter().filter(|(flag, _)| *flag == "cap");
        set.map(|(_, value)| capability(self.build, value).expect("it was checked"))
            .collect()
    }
}

type Flags = Vec<(&'static Flag, String)>;

/// Separates flags from operands.
fn split<S: AsRef<str>>(words: &[S]) -> Result<(Flags, Vec<String>), String> {
    let (mut flags, mut rest) = (Vec::new(), Vec::new());
    let mut words = words.iter().map(AsRef::as_ref);
    while let Some(word) = words.next() {
        let (flag, inline) = if let Some(long) = word.strip_prefix("--") {
            let (name, inline) = long
                .split_once('=')
                .map_or((long, None), |(name, value)| (name, Some(value)));
            (find_flag(|flag| flag.name == name), inline)
        } else if let Some(short) = word.strip_prefix('-') {
            let mut letters = short.chars();
            let letter = letters.next();
            let inline = Some(letters.as_str()).filter(|value| !value.is_empty());
            (
                find_flag(|flag| letter.is_some() && flag.letter == letter),
                inline,
            )
        } else {
            rest.push(word.to_owned());
            continue;
        };
        let flag = flag.ok_or_else(|| format!("unknown flag: {word}"))?;
        let value = match (inline, flag.value) {
            (Some(value), _) => value,
            (None, Value::Switch) => "true",
            (None, _) => words
                .next()
                .ok_or_else(|| format!("flag needs an argument: {word}"))?,
        };
        flags.push((flag, value.to_owned()));
    }
    Ok((flags, rest))
}

fn find_flag(test: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    let flags = COMMANDS.iter().flat_map(|command| command.flags);
    GLOBAL_FLAGS.iter().chain(flags).find(|flag| test(flag))
}

fn check(build: Build, flag: &Flag, value: &str) -> Result<(), String> {
    let fits = match flag.value {
        Value::Text | Value::Pairs => true,
        Value::Number => value.parse::<i64>().is_ok(),
        Value::Duration => duration(value).is_some(),
        Value::Switch => ["true", "false"].contains(&value),
        Value::Capability => return capability(build, value).map(drop),
    };
    if fits {
        Ok(())
    } else {
        Err(format!("invalid argument {value:?} for --{}", flag.name))
    }
}

/// Parses one number with a unit, as in `90s`.
fn duration(value: &str) -> Option<Duration> {
    let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
    let count: u64 = value.strip_suffix(unit)?.parse().ok()?;
    match unit {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(60 * count)),
        "h" => Some(Duration::from_secs(3600 * count)),
        _ => None,
    }
}

/// Parses a capability. A number that the build does not know leaves the mode unset, as in csc.
fn capability(build: Build, value: &str) -> Result<VolumeCapability, String> {
    let invalid = || format!("invalid volume capability: {value}");
    let parts: Vec<_> = value.splitn(4, ',').collect();
    let [mode, kind, rest @ ..] = parts.as_slice() else {
        return Err(invalid());
    };
    let known = |mode: &Mode| build == Build::Dell || *mode as i32 <= Mode::MultiNodeMultiWriter as i32;
    let mode = if let Some(mode) = Mode::from_str_name(mode).filter(known) {
        Some(mode)
    } else {
        let number = mode.parse::<i32>();
        let number = number.map_err(|_| format!("invalid access mode: {mode}"))?;
        Mode::try_from(number).ok().filter(known)
    };
    let access_type = match (kind.to_ascii_lowercase().as_str(), rest) {
        ("1" | "block", _) => AccessType::Block(BlockVolume {}),
        ("2" | "mount", [fs_type, flags @ ..]) => AccessType::Mount(MountVolume {
            fs_type: (*fs_type).to_owned(),
            mount_flags: flags
                .iter()
                .flat_map(|flags| flags.split(','))
                .map(str::to_owned)
                .collect(),
            ..Default::default()
        }),
        _ => return Err(invalid()),
    };
    Ok(VolumeCapability {
        access_mode: mode.map(|mode| AccessMode { mode: mode.into() }),
        access_type: Some(access_type),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(build: Build, line: &str) -> Result<Invocation, String> {
        let words: Vec<_> = line.split_whitespace().collect();
        Invocation::parse(build, &words)
    }

    #[test]
    fn a_typo_on_the_command_line_is_refused_and_named() {
        for (line, part) in [
            ("controler list-volumes", "controler"),
            ("controller list-volume", "list-volume"),
            ("controller publish-volume ID --node-id N", "publish-volume"),
            ("node attach ID --node-id N", "attach"),
            ("identity probe --ready", "--ready"),
            ("node unstage ID --target-path /t", "target-path"),
            ("controller list-volumes --max-entrys 1", "--max-entrys"),
            ("controller create-volume", "0 arguments"),
            ("identity probe now", "1 arguments"),
            ("node stats ID", "ID:PATH"),
            ("controller create-volume a --req-bytes 64MiB", "64MiB"),
            ("controller create-volume a --cap", "needs an argument"),
            (
                "controller create-volume a --cap SINGLE_NODE_WRITER",
                "invalid volume capability",
            ),
            (
                "controller create-volume a --cap SINGLE_NODE_WRITER,mount",
                "invalid volume capability",
            ),
            (
                "controller create-volume a --cap SINGLE_NODE_WRITER,file,ext4",
                "invalid volume capability",
            ),
            (
                "controller create-volume a --cap SINGLE_WRITER,mount,ext4",
                "invalid access mode",
            ),
            ("identity probe --timeout 5", "invalid argument \"5\""),
            ("controller", "missing"),
            ("", "missing"),
        ] {
            let refused = parse(Build::Dell, line).unwrap_err();
            assert!(refused.contains(part), "{line}: {refused}");
        }
    }

    #[test]
    fn every_alias_means_its_command() {
        for (line, rpc) in [
            ("i info", Rpc::PluginInfo),
            ("ident caps", Rpc::PluginCapabilities),
            ("c new a", Rpc::CreateVolume),
            ("c rm ID", Rpc::DeleteVolume),
            ("c attach ID", Rpc::ControllerPublish),
            ("c detach ID", Rpc::ControllerUnpublish),
            ("c ls", Rpc::ListVolumes),
            ("c validate ID", Rpc::Validate),
            ("n info", Rpc::NodeInfo),
            ("n mount ID", Rpc::NodePublish),
            ("n umount ID", Rpc::NodeUnpublish),
        ] {
            assert_eq!(parse(Build::Rexray, line).unwrap().rpc, rpc, "{line}");
        }
    }

    #[test]
    fn the_builds_know_different_access_modes() {
        let mode = |build, mode: &str| {
            let parsed = parse(build, &format!("c new a --cap {mode},mount,,noatime,nodev"));
            parsed.map(|call| call.capabilities().remove(0))
        };
        let number = |capability: VolumeCapability| capability.access_mode.map(|mode| mode.mode);
        for name in ["SINGLE_NODE_MULTI_WRITER", "SINGLE_NODE_SINGLE_WRITER"] {
            mode(Build::Dell, name).unwrap();
            mode(Build::Rexray, name).unwrap_err();
        }
        assert_eq!(number(mode(Build::Dell, "7").unwrap()), Some(7));
        assert_eq!(
            number(mode(Build::Rexray, "7").unwrap()),
            None,
            "dropped without an error"
        );
        assert_eq!(number(mode(Build::Rexray, "1").unwrap()), Some(1));
        let Some(AccessType::Mount(mount)) = mode(Build::Rexray, "1").unwrap().access_type else {
            panic!("not a mount");
        };
        assert_eq!(mount.fs_type, "");
        assert_eq!(mount.mount_flags, ["noatime", "nodev"]);
    }

    #[test]
    fn flags_are_parsed_in_every_form() {
        let call = parse(
            Build::Dell,
            "-e csi.sock c -t90s new --params=a=b,c --req-bytes=5 --params d=e one two",
        );
        let call = call.unwrap();
        assert_eq!(call.operands, ["one", "two"]);
        assert_eq!(
            (call.text("endpoint"), call.timeout()),
            (Some("csi.sock"), Duration::from_secs(90))
        );
        assert_eq!(call.number("req-bytes"), 5);
        let pairs = [("a", "b"), ("c", ""), ("d", "e")];
        let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(call.pairs("params"), pairs.into());
    }
}
