//! The containers in which an agent of Mesos runs a plugin.

use std::path::Path;

use serde::Deserialize;

use super::report::{Report, is_absolute};

/// The services that a plugin can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Service {
    ControllerService,
    NodeService,
}

/// `CSIPluginContainerInfo`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Container {
    #[serde(default)]
    pub(super) services: Vec<Service>,
    pub(super) command: Command,
    #[serde(default)]
    resources: Vec<Resource>,
}

/// `CommandInfo`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Command {
    shell: Option<bool>,
    pub(super) value: String,
    #[serde(default)]
    pub(super) arguments: Vec<String>,
    environment: Option<Environment>,
    user: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Environment {
    variables: Vec<Variable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    #[expect(dead_code, reason = "only its presence is checked")]
    value: String,
}

/// `Resource`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Resource {
    name: String,
    r#type: ResourceType,
    scalar: Scalar,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ResourceType {
    Scalar,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scalar {
    value: f64,
}

/// Checks the containers of a plugin, which must serve all of `needed`.
pub(super) fn check(report: &mut Report, at: &str, containers: &[Container], needed: &[Service]) {
    for (number, container) in containers.iter().enumerate() {
        let at = format!("{at}[{number}]");
        report.require(
            !container.services.is_empty(),
            format!("{at}.services"),
            "a container that serves nothing is never started",
        );
        container.command.check(report, &format!("{at}.command"));
        container.check_resources(report, &format!("{at}.resources"));
    }
    for service in needed {
        let served = containers
            .iter()
            .any(|container| container.services.contains(service));
        report.require(
            served,
            format!("{at}[].services"),
            format!("nothing serves {service:?}"),
        );
    }
}

impl Container {
    fn check_resources(&self, report: &mut Report, at: &str) {
        for (number, resource) in self.resources.iter().enumerate() {
            let at = format!("{at}[{number}]");
            let Resource {
                name,
                r#type: ResourceType::Scalar,
                scalar,
            } = resource;
            report.require(
                matches!(name.as_str(), "cpus" | "mem" | "disk"),
                format!("{at}.name"),
                format!("{name:?} is nothing that a container is given"),
            );
            report.require(
                scalar.value > 0.0,
                format!("{at}.scalar.value"),
                "it has to be more than nothing",
            );
        }
    }
}

impl Command {
    fn check(&self, report: &mut Report, at: &str) {
        report.require(
            self.shell == Some(false),
            format!("{at}.shell"),
            "it is true unless given as false, and then the arguments are not used",
        );
        report.require(
            is_absolute(&self.value),
            format!("{at}.value"),
            "it is the absolute path of the program",
        );
        let program = Path::new(&self.value).file_name().and_then(|name| name.to_str());
        report.require(
            self.arguments.first().map(String::as_str) == program,
            format!("{at}.arguments[0]"),
            "it is the program's own name, argv[0]",
        );
        report.require(
            self.arguments.get(1).map(String::as_str) == Some("serve"),
            format!("{at}.arguments[1]"),
            "it is the command that runs the plugin, serve",
        );
        for (number, argument) in self.arguments.iter().enumerate().skip(2) {
            report.require(
                argument.starts_with("--"),
                format!("{at}.arguments[{number}]"),
                format!("{argument:?} is no flag"),
            );
        }
        for variable in self
            .environment
            .iter()
            .flat_map(|environment| &environment.variables)
        {
            report.require(
                variable.name != "CSI_ENDPOINT",
                format!("{at}.environment.variables"),
                "CSI_ENDPOINT is for Mesos to set",
            );
        }
        report.require(
            self.user.as_deref().is_none_or(|user| user == "root"),
            format!("{at}.user"),
            "the plugin mounts, so it runs as root",
        );
    }
}
