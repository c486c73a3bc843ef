//! Disk profiles, and the module that reads them.

use std::collections::{BTreeMap, HashMap};

use flocker_csi::volume::Parameters;
use serde::Deserialize;

use super::capability::VolumeCapability;
use super::report::{Report, is_absolute, is_dotted, is_token, seconds};

/// The module that gives an agent its profiles.
pub(super) const ADAPTOR: &str = "org_apache_mesos_UriDiskProfileAdaptor";

/// `DiskProfileMapping`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mapping {
    pub(super) profile_matrix: BTreeMap<String, Profile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    pub(super) csi_plugin_type_selector: Option<PluginSelector>,
    resource_provider_selector: Option<ProviderSelector>,
    pub(super) volume_capabilities: VolumeCapability,
    #[serde(default)]
    pub(super) create_parameters: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginSelector {
    pub(super) plugin_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderSelector {
    resource_providers: Vec<SelectedProvider>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectedProvider {
    r#type: String,
    name: String,
}

impl Mapping {
    pub(super) fn check(&self, report: &mut Report) {
        report.require(
            !self.profile_matrix.is_empty(),
            "profile_matrix",
            "without a profile nothing is offered",
        );
        for (name, profile) in &self.profile_matrix {
            profile.check(report, &format!("profile_matrix.{name}"));
        }
    }
}

impl Profile {
    fn check(&self, report: &mut Report, at: &str) {
        match (&self.csi_plugin_type_selector, &self.resource_provider_selector) {
            (Some(selector), None) => report.require(
                is_dotted(&selector.plugin_type),
                format!("{at}.csi_plugin_type_selector.plugin_type"),
                "it is the type of a plugin",
            ),
            (None, Some(selector)) => {
                let at = format!("{at}.resource_provider_selector.resource_providers");
                report.require(!selector.resource_providers.is_empty(), &at, "it selects nothing");
                for provider in &selector.resource_providers {
                    report.require(
                        is_dotted(&provider.r#type) && is_token(&provider.name),
                        &at,
                        "these are the types and names of resource providers",
                    );
                }
            }
            _ => report.refuse(
                format!("{at}.csi_plugin_type_selector"),
                "exactly one selector is needed, this or resource_provider_selector",
            ),
        }
        self.volume_capabilities
            .check(report, &format!("{at}.volume_capabilities"));
        if let Err(error) = Parameters::parse(&self.create_parameters) {
            report.refuse(format!("{at}.create_parameters"), error.chain());
        }
    }

    /// Returns the storage profile of Flocker's with which its disks are created.
    pub(super) fn storage(&self) -> Option<String> {
        Parameters::parse(&self.create_parameters).ok()?.profile
    }
}

/// `Modules`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Modules {
    libraries: Vec<Library>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Library {
    file: Option<String>,
    name: Option<String>,
    #[serde(default)]
    modules: Vec<Module>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    name: String,
    #[serde(default)]
    parameters: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parameter {
    key: String,
    value: String,
}

impl Modules {
    pub(super) fn check(&self, report: &mut Report) {
        for (number, library) in self.libraries.iter().enumerate() {
            let at = format!("libraries[{number}]");
            report.require(
                library.file.is_some() != library.name.is_some(),
                format!("{at}.file"),
                "exactly one of file and name is needed",
            );
            report.require(
                library.file.as_deref().is_none_or(is_absolute),
                format!("{at}.file"),
                "it is an absolute path",
            );
            for (number, module) in library.modules.iter().enumerate() {
                module.check(report, &format!("{at}.modules[{number}]"));
            }
        }
        report.require(
            self.profiles().is_some(),
            "libraries",
            format!("there is no module {ADAPTOR} with a uri"),
        );
    }

    /// Returns the path from which the adaptor reads the profiles.
    pub(super) fn profiles(&self) -> Option<&str> {
        let mut modules = self.libraries.iter().flat_map(|library| &library.modules);
        let adaptor = modules.find(|module| module.name == ADAPTOR)?;
        let uri = adaptor
            .parameters
            .iter()
            .find(|parameter| parameter.key == "uri")?;
        Some(uri.value.strip_prefix("file://").unwrap_or(&uri.value))
    }
}

impl Module {
    fn check(&self, report: &mut Report, at: &str) {
        report.require(
            self.name == ADAPTOR,
            format!("{at}.name"),
            format!("the only module that is needed is {ADAPTOR}"),
        );
        for (number, Parameter { key, value }) in self.parameters.iter().enumerate() {
            let at = format!("{at}.parameters[{number}]");
            let valid = match key.as_str() {
                "uri" => {
                    is_absolute(value.strip_prefix("file://").unwrap_or(value))
                        || value.starts_with("http://")
                        || value.starts_with("https://")
                }
                "poll_interval" | "max_random_wait" => seconds(value).is_some(),
                _ => {
                    report.refuse(
                        format!("{at}.key"),
                        format!("{key:?} is none of uri, poll_interval and max_random_wait"),
                    );
                    continue;
                }
            };
            report.require(valid, format!("{at}.value"), format!("{value:?} is no {key}"));
        }
    }
}
