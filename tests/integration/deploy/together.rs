//! Rules that span several files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use flocker_csi::config::Config;
use flocker_csi::config::Endpoint;

use super::capability::creates;
use super::containers::Container;
use super::report::Report;
use super::settings::{self, Role, own_directories};
use super::tree::Parsed;

/// Returns the problems, each with the file and field to change.
pub(super) fn problems(parsed: &Parsed) -> Vec<String> {
    let mut all = Vec::new();
    let mut about = |file: &str, check: &mut dyn FnMut(&mut Report)| {
        let mut report = Report::of(file);
        check(&mut report);
        all.extend(report.problems());
    };
    for directory in [
        "deploy/mesos/csi-plugins-managed",
        "deploy/mesos/csi-plugins-unmanaged",
    ] {
        about(directory, &mut |report| {
            check_directory(report, parsed, directory);
        });
    }
    about("deploy/mesos/resource-providers", &mut |report| {
        check_providers(report, parsed);
    });
    for (file, mapping) in &parsed.mappings {
        about(file, &mut |report| check_profiles(report, parsed, mapping));
    }
    for (file, volumes) in &parsed.tasks {
        about(file, &mut |report| {
            for (number, volume) in volumes.iter().enumerate() {
                let volume = &volume.source.csi_volume;
                let at = format!("[{number}].source.csi_volume");
                check_plugin(report, parsed, &format!("{at}.plugin_name"), &volume.plugin_name);
                let context = &volume.static_provisioning.volume_context;
                let at = format!("{at}.static_provisioning.volume_context.flocker.create");
                check_creates(report, parsed, &at, context);
            }
        });
    }
    let mut taken = BTreeSet::new();
    for (file, app) in &parsed.apps {
        about(file, &mut |report| {
            for external in app.external() {
                let at = "container.volumes[].external.options";
                let options = &external.options;
                check_plugin(report, parsed, &format!("{at}.pluginName"), &options.plugin_name);
                let at = format!("{at}.volumeContext.flocker.create");
                check_creates(report, parsed, &at, &options.volume_context);
            }
            for name in app.exclusive() {
                report.require(
                    taken.insert(name.to_owned()),
                    "container.volumes[].external.name",
                    format!("another application uses {name:?} too"),
                );
            }
            for disk in app
                .container
                .volumes
                .iter()
                .filter_map(|volume| volume.persistent.as_ref())
            {
                let known = |profile: &String| {
                    let mut mappings = parsed.mappings.iter();
                    mappings.any(|(_, mapping)| mapping.profile_matrix.contains_key(profile))
                };
                report.require(
                    disk.profile_name.as_ref().is_none_or(known),
                    "container.volumes[].persistent.profileName",
                    "no disk profile has this name",
                );
            }
        });
    }
    check_commands(parsed, &mut about);
    check_settings(parsed, &mut about);
    for (file, flags) in &parsed.flags {
        about(file, &mut |report| check_flags(report, parsed, flags));
    }
    all
}

/// Calls a check with a report on a file.
type About<'a> = dyn FnMut(&str, &mut dyn FnMut(&mut Report)) + 'a;

fn check_directory(report: &mut Report, parsed: &Parsed, directory: &str) {
    let here = |file: &str| file.rsplit_once('/').is_some_and(|(at, _)| at == directory);
    let mut types = BTreeSet::new();
    for (file, plugin) in parsed.plugins.iter().filter(|(file, _)| here(file)) {
        report.require(
            types.insert(&plugin.r#type),
            "type",
            format!("{file} has the type of another file, and an agent takes one of each"),
        );
        let provider = parsed.providers.iter().find(|(_, provider)| {
            let other = &provider.storage.plugin;
            other.r#type == plugin.r#type && other.name() == plugin.name()
        });
        report.require(
            provider.is_none(),
            "name",
            format!("{file} has type and name of a resource provider's plugin, and each deletes the other's mounts"),
        );
    }
    report.require(
        !types.is_empty(),
        "files",
        "an agent exits when it finds no plugin in the directory",
    );
}

fn check_providers(report: &mut Report, parsed: &Parsed) {
    let mut names = BTreeSet::new();
    for (file, provider) in &parsed.providers {
        report.require(
            names.insert(&provider.name),
            "name",
            format!("{file} has the name of another provider"),
        );
    }
    report.require(!names.is_empty(), "files", "there is no provider");
}

fn check_profiles(report: &mut Report, parsed: &Parsed, mapping: &super::profiles::Mapping) {
    for (name, profile) in &mapping.profile_matrix {
        let at = format!("profile_matrix.{name}");
        if let Some(selector) = &profile.csi_plugin_type_selector {
            let mut providers = parsed.providers.iter();
            report.require(
                providers.any(|(_, provider)| provider.storage.plugin.r#type == selector.plugin_type),
                format!("{at}.csi_plugin_type_selector.plugin_type"),
                "no resource provider has a plugin of this type",
            );
        }
        for file in used_by(parsed, Role::Provider) {
            let Some(config) = parsed.settings.get(&file) else {
                continue;
            };
            report.require(
                config.pools.iter().any(|pool| pool.profile == profile.storage()),
                format!("{at}.create_parameters"),
                format!("{file} declares no pool for it, so nothing of it is offered"),
            );
        }
    }
}

fn check_plugin(report: &mut Report, parsed: &Parsed, field: &str, plugin: &str) {
    let known = parsed.plugins.iter().any(|(_, known)| known.r#type == plugin);
    report.require(
        known,
        field,
        format!("no plugin of volume/csi has the type {plugin:?}"),
    );
}

fn check_creates(report: &mut Report, parsed: &Parsed, field: &str, context: &HashMap<String, String>) {
    for file in used_by(parsed, Role::Isolator) {
        let allowed = |config: &Config| config.plugin.create_on_first_use;
        report.require(
            !creates(context) || parsed.settings.get(&file).is_none_or(allowed),
            field,
            format!("{file} does not allow it: create_on_first_use"),
        );
    }
}

/// Returns every command line that runs the plugin: the file, the purpose, program and arguments.
pub(super) fn command_lines(parsed: &Parsed) -> Vec<(String, Role, String, Vec<String>)> {
    let in_containers = |file: &str, role, containers: &[Container]| {
        let line = |container: &Container| {
            let command = &container.command;
            let arguments = command.arguments.iter().skip(1).cloned().collect();
            (file.to_owned(), role, command.value.clone(), arguments)
        };
        containers.iter().map(line).collect::<Vec<_>>()
    };
    let providers = parsed.providers.iter().flat_map(|(file, provider)| {
        in_containers(file, Role::Provider, &provider.storage.plugin.containers)
    });
    let plugins = parsed
        .plugins
        .iter()
        .flat_map(|(file, plugin)| in_containers(file, Role::Isolator, &plugin.containers));
    let units = parsed.units.iter().filter_map(|(file, unit)| {
        let (program, arguments) = unit
            .command()
            .split_first()
            .map(|(first, rest)| (first.clone(), rest.to_vec()))?;
        Some((file.clone(), Role::Isolator, program, arguments))
    });
    providers.chain(plugins).chain(units).collect()
}

/// Returns the file of the repository that is installed at a path, if it is the only one.
pub(super) fn source_of<'a>(parsed: &'a Parsed, path: &str) -> Option<&'a str> {
    let sources = parsed.installed.get(path)?;
    sources.first().filter(|_| sources.len() == 1).map(String::as_str)
}

/// Returns the settings of the plugins of one role.
fn used_by(parsed: &Parsed, role: Role) -> BTreeSet<String> {
    let lines = command_lines(parsed);
    let lines = lines.iter().filter(|(_, of, _, _)| *of == role);
    lines
        .flat_map(|(_, _, _, arguments)| arguments)
        .filter_map(|argument| source_of(parsed, argument.strip_prefix("--config=")?))
        .map(str::to_owned)
        .collect()
}

fn check_commands(parsed: &Parsed, about: &mut About<'_>) {
    for (file, _, program, arguments) in command_lines(parsed) {
        about(&file, &mut |report| {
            report.require(
                parsed.installed.contains_key(&program),
                "command",
                format!("{program} is installed by no page"),
            );
            let configs = arguments
                .iter()
                .filter_map(|argument| argument.strip_prefix("--config="));
            report.require(
                configs.clone().count() == 1,
                "command",
                "exactly one --config=FILE is needed",
            );
            for config in configs {
                report.require(
                    source_of(parsed, config).is_some_and(|source| parsed.settings.contains_key(source)),
                    "command",
                    format!("{config} is installed by no page, or is not what it should be"),
                );
            }
        });
    }
}

fn check_settings(parsed: &Parsed, about: &mut About<'_>) {
    let mut own = BTreeMap::new();
    for (file, config) in &parsed.settings {
        about(file, &mut |report| {
            let roles: Vec<_> = [Role::Provider, Role::Isolator]
                .into_iter()
                .filter(|role| used_by(parsed, *role).contains(file))
                .collect();
            match roles.as_slice() {
                [role] => settings::check(report, config, *role),
                _ => report.refuse(
                    "settings",
                    "they are for exactly one of resource provider and volume/csi",
                ),
            }
            for (key, directory) in own_directories(config) {
                if let Some(other) = own.insert(directory.clone(), file.clone()) {
                    report.refuse(key, format!("{other} has this directory too"));
                }
            }
        });
    }
    for (file, plugin) in &parsed.plugins {
        about(file, &mut |report| check_unmanaged(report, parsed, plugin));
    }
    for (file, unit) in &parsed.units {
        about(file, &mut |report| {
            let directory =
                Path::new("/run").join(unit.get("Service", "RuntimeDirectory").unwrap_or_default());
            for config in parsed.settings_of(Role::Isolator) {
                let Endpoint::Unix(socket) = &config.plugin.endpoint else {
                    return report.refuse("ExecStart", "the settings have an endpoint that is no socket");
                };
                report.require(
                    socket.parent() == Some(&directory),
                    "RuntimeDirectory",
                    format!("the socket of the settings is {}", socket.display()),
                );
            }
        });
    }
}

impl Parsed {
    fn settings_of(&self, role: Role) -> impl Iterator<Item = &Config> {
        let files = used_by(self, role);
        self.settings
            .iter()
            .filter(move |(file, _)| files.contains(*file))
            .map(|(_, config)| config)
    }
}

fn check_unmanaged(report: &mut Report, parsed: &Parsed, plugin: &super::plugins::Plugin) {
    for endpoint in &plugin.endpoints {
        let mut settings = parsed.settings_of(Role::Isolator);
        report.require(
            settings.any(|config| config.plugin.endpoint.to_string() == endpoint.endpoint),
            "endpoints[].endpoint",
            "no plugin of volume/csi has this endpoint",
        );
    }
    let Some(root) = &plugin.target_path_root else {
        return;
    };
    report.require(
        parsed.made.contains(root),
        "target_path_root",
        "no file of tmpfiles.d makes this directory",
    );
    let settings = parsed.settings.values().flat_map(|config| {
        let own = own_directories(config).map(|(_, directory)| directory.clone());
        own.into_iter().chain([config.node.mount_root.clone()])
    });
    let work_dirs = parsed.flags.iter().filter_map(|(_, flags)| flags.get("work_dir"));
    let installed = parsed.installed.keys();
    let others = settings.chain(work_dirs.chain(installed).map(Into::into));
    for other in others {
        report.require(
            !other.starts_with(root) && !Path::new(root).starts_with(&other),
            "target_path_root",
            format!(
                "Mesos deletes what it does not know there, so it cannot share a tree with {}",
                other.display()
            ),
        );
    }
}

fn check_flags(report: &mut Report, parsed: &Parsed, flags: &super::agent::Flags) {
    for name in ["resource_provider_config_dir", "csi_plugin_config_dir"] {
        let Some(directory) = flags.get(name) else {
            continue;
        };
        let files = parsed
            .installed
            .keys()
            .filter(|path| Path::new(path).starts_with(directory));
        report.require(
            files.clone().count() == 1,
            name,
            format!("pages have to install one file below {directory}"),
        );
    }
    let Some(modules) = flags.get("modules").and_then(|uri| uri.strip_prefix("file://")) else {
        return;
    };
    let modules = parsed
        .modules
        .iter()
        .find(|(file, _)| source_of(parsed, modules) == Some(file));
    report.require(modules.is_some(), "modules", "no page installs modules there");
    let profiles = modules
        .and_then(|(_, modules)| modules.profiles())
        .unwrap_or_default();
    let mut mappings = parsed.mappings.iter();
    report.require(
        mappings.any(|(file, _)| source_of(parsed, profiles) == Some(file)),
        "modules",
        format!("no page installs profiles at {profiles:?}"),
    );
}
