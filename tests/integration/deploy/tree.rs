//! Every file that is shipped for Mesos and Marathon, checked by its rule.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use flocker_csi::config::Config;

use super::agent::{self, Flags};
use super::marathon::App;
use super::pages::{self, Installed};
use super::plugins::{Plugin, Provider};
use super::profiles::{Mapping, Modules};
use super::report::Report;
use super::systemd::{self, Unit};
use super::task::{self, Volume};
use super::{settings, together};

/// The directories in which every file must have a rule.
const SHIPPED: [&str; 2] = ["deploy/mesos", "deploy/marathon"];

/// Returns the directory that holds the repository.
pub(super) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files, by their path in the repository.
#[derive(Clone)]
pub(super) struct Tree(pub(super) BTreeMap<String, String>);

/// Parsed files, with their paths.
#[derive(Default)]
pub(super) struct Parsed {
    pub(super) providers: Vec<(String, Provider)>,
    /// Plugins of `volume/csi`.
    pub(super) plugins: Vec<(String, Plugin)>,
    pub(super) mappings: Vec<(String, Mapping)>,
    pub(super) modules: Vec<(String, Modules)>,
    pub(super) flags: Vec<(String, Flags)>,
    pub(super) settings: BTreeMap<String, Config>,
    pub(super) units: Vec<(String, Unit)>,
    /// Directories that are created at boot.
    pub(super) made: Vec<String>,
    pub(super) tasks: Vec<(String, Vec<Volume>)>,
    pub(super) apps: Vec<(String, App)>,
    pub(super) installed: Installed,
}

impl Tree {
    /// Reads the files of the repository.
    pub(super) fn shipped() -> Self {
        let mut files = BTreeMap::new();
        let mut directories: Vec<PathBuf> = SHIPPED.iter().map(PathBuf::from).collect();
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(repository().join(&directory)).unwrap() {
                let entry = entry.unwrap();
                let path = directory.join(entry.file_name());
                if entry.file_type().unwrap().is_dir() {
                    directories.push(path);
                } else {
                    let text = fs::read_to_string(entry.path()).unwrap();
                    files.insert(path.to_str().unwrap().to_owned(), text);
                }
            }
        }
        Self(files)
    }

    /// Parses every file and returns the problems, each with its file and field.
    pub(super) fn parse(&self) -> (Parsed, Vec<String>) {
        let mut parsed = Parsed::default();
        let mut problems = Vec::new();
        for (path, text) in &self.0 {
            let mut report = Report::of(path);
            parsed.read(&mut report, path, text);
            problems.extend(report.problems());
        }
        problems.extend(together::problems(&parsed));
        (parsed, problems)
    }
}

impl Parsed {
    fn read(&mut self, report: &mut Report, path: &str, text: &str) {
        let (directory, name) = path.rsplit_once('/').unwrap();
        let extension = Path::new(name)
            .extension()
            .and_then(|extension| extension.to_str());
        match (directory, extension) {
            // An agent reads every file of these directories, with any name.
            ("deploy/mesos/resource-providers", _) => {
                keep(
                    &mut self.providers,
                    report,
                    path,
                    text,
                    |provider: &Provider, report| {
                        provider.check(report);
                    },
                );
            }
            ("deploy/mesos/csi-plugins-managed" | "deploy/mesos/csi-plugins-unmanaged", _) => {
                keep(
                    &mut self.plugins,
                    report,
                    path,
                    text,
                    |plugin: &Plugin, report| {
                        plugin.check(report);
                        let managed = directory.ends_with("-managed");
                        report.require(
                            managed == plugin.endpoints.is_empty(),
                            "containers",
                            "Mesos starts what is in the one directory, and nothing in the other",
                        );
                    },
                );
            }
            ("deploy/mesos", Some("json")) => {
                keep(
                    &mut self.mappings,
                    report,
                    path,
                    text,
                    |mapping: &Mapping, report| {
                        mapping.check(report);
                    },
                );
            }
            ("deploy/mesos/modules", Some("json")) => {
                keep(
                    &mut self.modules,
                    report,
                    path,
                    text,
                    |modules: &Modules, report| {
                        modules.check(report);
                    },
                );
            }
            ("deploy/mesos", Some("flags")) => {
                let flags = agent::read(report, text);
                agent::check(report, &flags);
                self.flags.push((path.to_owned(), flags));
            }
            ("deploy/mesos/plugin", Some("toml")) => {
                if let Some(config) = settings::read(report, text) {
                    self.settings.insert(path.to_owned(), config);
                }
            }
            ("deploy/mesos/systemd", Some("service")) => {
                let unit = Unit::read(report, text);
                unit.check(report);
                self.units.push((path.to_owned(), unit));
            }
            ("deploy/mesos/tmpfiles.d", Some("conf")) => {
                self.made.extend(systemd::check_tmpfiles(report, text));
            }
            ("deploy/mesos/volumes", Some("json")) => {
                keep(
                    &mut self.tasks,
                    report,
                    path,
                    text,
                    |volumes: &Vec<Volume>, report| {
                        task::check(report, volumes);
                    },
                );
            }
            ("deploy/marathon", Some("json")) => {
                keep(&mut self.apps, report, path, text, |app: &App, report| {
                    app.check(report);
                });
            }
            (_, Some("md")) => {
                for (to, from) in pages::check(report, path, text) {
                    self.installed.entry(to).or_default().extend(from);
                }
            }
            _ => report.refuse("name", "no rule covers this file"),
        }
    }
}

/// Parses JSON, checks it, and stores it.
fn keep<T: serde::de::DeserializeOwned>(
    kept: &mut Vec<(String, T)>,
    report: &mut Report,
    path: &str,
    text: &str,
    check: impl FnOnce(&T, &mut Report),
) {
    if let Some(value) = report.read(text) {
        check(&value, report);
        kept.push((path.to_owned(), value));
    }
}
