//! The sources of settings, by precedence: flag, environment, configuration file, default.
//!
//! The values of the environment and the file become flags in front of the given ones, and clap parses them all as one
//! command line. So a setting has one name, one type and one set of messages in every source.
//!
//! Crates for layered configuration (figment 0.10, config 0.15) report one error at a time, without its line, and need a
//! second declaration of every flag; clap's own `env` names the flag where a variable is wrong.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use host_fs::{Links, read_regular};

use super::file;
use super::secrets::shown;
use crate::volume::did_you_mean;

/// The prefix of a setting's environment variable.
const PREFIX: &str = "FLOCKER_CSI_";
/// The flag that names the configuration file.
const FILE_FLAG: &str = "config";
/// The flag of the commands with a configuration file of their own.
const CHECK_FLAG: &str = "check_config";
/// The flags that are not settings: what one run is about.
const NO_SETTINGS: [&str; 10] = [
    FILE_FLAG,
    CHECK_FLAG,
    "help",
    "version",
    "node",
    "name",
    "condition",
    "leased_but_unused",
    "force",
    "yes",
];
/// The settings of the plugin's log, which are not those of another command's.
const LOG_SETTINGS: [&str; 2] = ["log", "log_format"];
/// The command whose configuration file other commands read too.
const PLUGIN: &str = "serve";

/// The largest configuration file in bytes that is read.
const LARGEST_FILE: u64 = 1 << 20;

/// The environment of the process: read once, at the edge.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// Why there is no configuration.
#[derive(Debug)]
pub enum Refusal {
    /// The command line is wrong, or asks for help or the version.
    CommandLine(clap::Error),
    /// Settings are wrong or missing: one sentence for each.
    Settings(Vec<String>),
}

/// Parses a command line on top of the environment and the configuration file.
///
/// Returns the matches for `command` and warnings for the user.
///
/// # Errors
/// See [`Refusal`]. It lists every wrong setting, also those that a source of higher precedence overrides.
pub(crate) fn parse(
    command: &Command,
    arguments: &[OsString],
    environment: &Environment,
) -> Result<(ArgMatches, Vec<String>), Refusal> {
    let lenient = nothing_required(command);
    let given = match lenient.clone().try_get_matches_from(arguments) {
        Ok(given) => given,
        // Help has to show which flags are required, so it comes from the strict command.
        Err(error) => {
            let error = help(command, arguments).unwrap_or(error);
            return Err(Refusal::CommandLine(without_secrets(error)));
        }
    };
    let (name, given) = given.subcommand().unwrap_or(("", &given));
    let mut layers = Layers {
        program: &lenient,
        command: lenient.find_subcommand(name).unwrap_or(&lenient),
        given,
        flags: Vec::new(),
        problems: Vec::new(),
    };
    let warnings = layers.read_environment(environment);
    layers.read_file(environment);
    if !layers.problems.is_empty() {
        return Err(Refusal::Settings(layers.problems));
    }
    // No flag precedes the subcommand, so that is always the first argument.
    let (front, rest) = arguments.split_at(arguments.len().min(2));
    let whole = front
        .iter()
        .cloned()
        .chain(layers.flags.iter().cloned())
        .chain(rest.iter().cloned());
    match command.clone().try_get_matches_from(whole) {
        Ok(matches) => Ok((matches, warnings)),
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            Err(Refusal::Settings(missing(&error, layers.command)))
        }
        Err(error) => Err(Refusal::CommandLine(without_secrets(error))),
    }
}

/// Removes from an error of the command line what may be a secret: see [`shown`].
fn without_secrets(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(value)) = error.get(ContextKind::InvalidValue) {
        let value = shown(value);
        error.insert(ContextKind::InvalidValue, ContextValue::String(value));
    }
    // An argument that belongs to no flag is a value.
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidSubcommand] {
        if let Some(ContextValue::String(argument)) = error.get(kind)
            && !argument.starts_with(['-', '<', '['])
        {
            let stray = "(not shown)".to_owned();
            error.insert(kind, ContextValue::String(stray));
        }
    }
    error
}

fn help(command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let error = command.clone().try_get_matches_from(arguments).err()?;
    (error.kind() == ErrorKind::DisplayHelp).then_some(error)
}

fn nothing_required(command: &Command) -> Command {
    let names: Vec<_> = command
        .get_subcommands()
        .map(|command| command.get_name().to_owned())
        .collect();
    names.into_iter().fold(command.clone(), |command, name| {
        command.mut_subcommand(name, |subcommand| {
            subcommand.mut_args(|argument| argument.required(false))
        })
    })
}

struct Layers<'a> {
    program: &'a Command,
    /// The subcommand that was given.
    command: &'a Command,
    given: &'a ArgMatches,
    flags: Vec<OsString>,
    problems: Vec<String>,
}

impl<'a> Layers<'a> {
    fn settings(&self) -> impl Iterator<Item = &'a Arg> + use<'a> {
        settings_of(self.command)
    }

    /// Adds every setting in the environment; returns warnings about variables that resemble one.
    fn read_environment(&mut self, environment: &Environment) -> Vec<String> {
        let value = |name: &str| {
            environment
                .get(OsStr::new(name))
                .filter(|value| !value.is_empty())
        };
        for setting in self.settings() {
            let key = setting.get_id().as_str();
            let name = variable(key);
            // The variable in which every orchestrator passes the endpoint to its plugins.
            let names = [
                name.as_str(),
                if key == "endpoint" { "CSI_ENDPOINT" } else { &name },
            ];
            if let Some((name, value)) = names.iter().find_map(|name| Some((name, value(name)?))) {
                self.add(setting, &[(name.to_string(), without_line_feed(value))]);
            }
        }
        // A setting of another command may be meant for that command.
        let known: Vec<_> = self
            .program
            .get_subcommands()
            .flat_map(Command::get_arguments)
            .map(|argument| argument.get_id().as_str())
            .filter(|key| *key == FILE_FLAG || !NO_SETTINGS.contains(key))
            .collect();
        let unknown = |name: &str| {
            let similar = did_you_mean(name, known.iter().copied());
            format!(
                "the environment variable {PREFIX}{} is not a setting{similar}",
                name.to_uppercase()
            )
        };
        environment
            .keys()
            .filter_map(|name| name.to_str()?.strip_prefix(PREFIX))
            .filter(|name| !set_by_kubernetes(name))
            .map(str::to_lowercase)
            .filter(|name| !known.contains(&name.as_str()))
            .map(|name| unknown(&name))
            .collect()
    }

    fn read_file(&mut self, environment: &Environment) {
        if !reads_a_file(self.command) {
            return;
        }
        let given = self.given.get_one::<PathBuf>(FILE_FLAG).cloned();
        let named = || {
            environment
                .get(OsStr::new(&variable(FILE_FLAG)))
                .filter(|path| !path.is_empty())
        };
        let Some(path) = given.or_else(|| named().map(PathBuf::from)) else {
            return;
        };
        let read = read_regular(&path, LARGEST_FILE, Links::Follow).and_then(|text| {
            String::from_utf8(text).map_err(|_| std::io::Error::other("it is not UTF-8 text"))
        });
        match read {
            Ok(text) => self.add_file(&path, &text),
            Err(error) => {
                self.problems.push(format!(
                    "cannot read the configuration file {}: {error}",
                    path.display()
                ));
            }
        }
    }

    fn add_file(&mut self, path: &Path, text: &str) {
        let place = |line: usize| format!("{}, line {line}", path.display());
        let entries = match file::parse(text) {
            Ok(entries) => entries,
            Err(malformed) => {
                let describe =
                    |malformed: file::Malformed| format!("{}: {}", place(malformed.line), malformed.text);
                return self.problems.extend(malformed.into_iter().map(describe));
            }
        };
        for file::Entry { key, line, values } in entries {
            let Some(setting) = self.settings().find(|setting| setting.get_id() == key.as_str()) else {
                if self.is_for_the_plugin(&key) {
                    continue;
                }
                let similar = did_you_mean(&key, self.settings().map(|setting| setting.get_id().as_str()));
                self.problems
                    .push(format!("{}: unknown key \"{key}\"{similar}", place(line)));
                continue;
            };
            if LOG_SETTINGS.contains(&key.as_str()) && !has_a_file_of_its_own(self.command) {
                continue;
            }
            match values {
                Ok(values) => {
                    let values: Vec<_> = values
                        .into_iter()
                        .map(|value| {
                            (
                                format!("{}: {key}", place(value.line)),
                                OsString::from(value.text),
                            )
                        })
                        .collect();
                    self.add(setting, &values);
                }
                Err(reason) => self.problems.push(format!("{}: {key}: {reason}", place(line))),
            }
        }
    }

    /// Whether this command ignores a key: the file is the plugin's, and this command reads only the settings for
    /// reaching Flocker in it.
    fn is_for_the_plugin(&self, key: &str) -> bool {
        let mut plugins = self
            .program
            .find_subcommand(PLUGIN)
            .into_iter()
            .flat_map(settings_of);
        !has_a_file_of_its_own(self.command) && plugins.any(|setting| setting.get_id() == key)
    }

    /// Adds the values of a setting from one source, unless a source of higher precedence has some.
    fn add(&mut self, setting: &Arg, values: &[(String, OsString)]) {
        let flag = format!("--{}=", setting.get_long().unwrap_or_default());
        let flag = |value: &OsStr| [OsStr::new(&flag), value].into_iter().collect::<OsString>();
        let mut valid = true;
        for (origin, value) in values {
            let alone = self
                .command
                .clone()
                .no_binary_name(true)
                .try_get_matches_from([flag(value)]);
            if let Err(error) = alone {
                valid = false;
                self.problems.push(format!(
                    "{origin} = \"{}\": {}",
                    shown(&value.to_string_lossy()),
                    reason(&error)
                ));
            }
        }
        if let [(origin, _), _, ..] = values
            && !matches!(setting.get_action(), ArgAction::Append)
        {
            valid = false;
            self.problems
                .push(format!("{origin}: expected one value, found {}", values.len()));
        }
        let overridden = self.given.value_source(setting.get_id().as_str()) == Some(ValueSource::CommandLine)
            || self
                .flags
                .iter()
                .any(|added| starts_with(added, &flag(OsStr::new(""))));
        if valid && !overridden {
            self.flags.extend(values.iter().map(|(_, value)| flag(value)));
        }
    }
}

/// Returns the flags that environment and file can set too.
fn settings_of(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_positional() && !NO_SETTINGS.contains(&argument.get_id().as_str()))
}

/// Returns the value of a variable without the line feed that a file or a secret leaves at its end.
fn without_line_feed(value: &OsStr) -> OsString {
    let bytes = value.as_bytes();
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    OsStr::from_bytes(line.strip_suffix(b"\r").unwrap_or(line)).to_owned()
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

/// Kubernetes sets variables with this prefix in every pod where a service is named `flocker-csi`.
fn set_by_kubernetes(name: &str) -> bool {
    name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_")
}

fn starts_with(text: &OsStr, start: &OsStr) -> bool {
    text.as_encoded_bytes().starts_with(start.as_encoded_bytes())
}

/// Returns why clap refuses a value, without the name of the flag, which the file does not have.
fn reason(error: &clap::Error) -> String {
    if let Some(source) = error.source() {
        return source.to_string();
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) => format!("expected one of {}", values.join(", ")),
        _ => "expected a value".to_owned(),
    }
}

fn has_a_file_of_its_own(command: &Command) -> bool {
    command
        .get_arguments()
        .any(|argument| argument.get_id() == CHECK_FLAG)
}

fn reads_a_file(command: &Command) -> bool {
    command
        .get_arguments()
        .any(|argument| argument.get_id() == FILE_FLAG)
}

fn missing(error: &clap::Error, command: &Command) -> Vec<String> {
    let Some(ContextValue::Strings(flags)) = error.get(ContextKind::InvalidArg) else {
        return vec!["a setting is missing".to_owned()];
    };
    let describe = |flag: &String| {
        let long = flag.split([' ', '=']).next().unwrap_or(flag);
        let key = long.trim_start_matches('-').replace('-', "_");
        let variable = variable(&key);
        if reads_a_file(command) {
            format!(
                "{key} is not set: give it as {flag}, as {variable} in the environment, or as {key} in the \
                 configuration file"
            )
        } else {
            format!("{key} is not set: give it as {flag}, or as {variable} in the environment")
        }
    };
    flags.iter().map(describe).collect()
}
