//! The two ways in which an agent of Mesos gets a plugin: a resource provider, and `volume/csi`.

use serde::Deserialize;

use super::containers::{self, Container, Service};
use super::report::{Report, is_absolute, is_dotted, is_token};

/// The one built-in type of resource provider.
const PROVIDER_TYPE: &str = "org.apache.mesos.rp.local.storage";
/// The longest path of a Unix socket.
const LONGEST_SOCKET_PATH: usize = 107;
/// The name of a plugin without one, from 1.11 on.
const DEFAULT_NAME: &str = "default";

/// `ResourceProviderInfo`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Provider {
    r#type: String,
    pub(super) name: String,
    id: Option<serde_json::Value>,
    #[serde(default)]
    pub(super) default_reservations: Vec<Reservation>,
    pub(super) storage: Storage,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reservation {
    r#type: ReservationType,
    pub(super) role: String,
    #[expect(dead_code, reason = "any will do")]
    principal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum ReservationType {
    Static,
    Dynamic,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Storage {
    pub(super) plugin: Plugin,
    reconciliation_interval_seconds: Option<f64>,
}

/// `CSIPluginInfo`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Plugin {
    pub(super) r#type: String,
    name: Option<String>,
    #[serde(default)]
    pub(super) containers: Vec<Container>,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) target_path_root: Option<String>,
    target_path_exists: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Endpoint {
    csi_service: Service,
    pub(super) endpoint: String,
}

impl Provider {
    pub(super) fn check(&self, report: &mut Report) {
        report.require(
            self.r#type == PROVIDER_TYPE,
            "type",
            format!("the one type there is is {PROVIDER_TYPE}"),
        );
        report.require(is_token(&self.name), "name", "letters, digits and _ are allowed");
        report.require(self.id.is_none(), "id", "it is for the agent to choose");
        for (number, reservation) in self.default_reservations.iter().enumerate() {
            self.check_reservation(report, number, reservation);
        }
        if let Some(seconds) = self.storage.reconciliation_interval_seconds {
            report.require(
                seconds >= 0.0,
                "storage.reconciliation_interval_seconds",
                "0 switches it off, and nothing is less",
            );
        }
        self.check_plugin(report);
    }

    fn check_reservation(&self, report: &mut Report, number: usize, reservation: &Reservation) {
        let at = format!("default_reservations[{number}]");
        report.require(
            is_role(&reservation.role),
            format!("{at}.role"),
            format!("{:?} is no role", reservation.role),
        );
        if let Some(parent) = number
            .checked_sub(1)
            .map(|before| &self.default_reservations[before])
        {
            report.require(
                reservation.r#type == ReservationType::Dynamic,
                format!("{at}.type"),
                "only the first may be STATIC",
            );
            report.require(
                reservation.role.starts_with(&format!("{}/", parent.role)),
                format!("{at}.role"),
                format!("it has to be below {:?}", parent.role),
            );
        }
    }

    fn check_plugin(&self, report: &mut Report) {
        let (at, plugin) = ("storage.plugin", &self.storage.plugin);
        check_names(report, at, plugin);
        report.require(
            plugin.name.is_some(),
            format!("{at}.name"),
            "it is required before Mesos 1.11",
        );
        for (given, field) in [
            (!plugin.endpoints.is_empty(), "endpoints"),
            (plugin.target_path_root.is_some(), "target_path_root"),
            (plugin.target_path_exists.is_some(), "target_path_exists"),
        ] {
            report.require(
                !given,
                format!("{at}.{field}"),
                "a resource provider runs its plugin itself, in its own directories",
            );
        }
        // Without the controller service the agent accepts the file and aborts later.
        containers::check(
            report,
            &format!("{at}.containers"),
            &plugin.containers,
            &[Service::ControllerService, Service::NodeService],
        );
    }
}

impl Plugin {
    /// Checks a plugin of `volume/csi`.
    pub(super) fn check(&self, report: &mut Report) {
        check_names(report, "", self);
        match (self.containers.is_empty(), self.endpoints.is_empty()) {
            (false, true) => {
                containers::check(report, "containers", &self.containers, &[Service::NodeService]);
            }
            (true, false) => self.check_endpoints(report),
            _ => report.refuse(
                "containers",
                "exactly one of containers and endpoints has to be given; the agent aborts without",
            ),
        }
        if let Some(root) = &self.target_path_root {
            report.require(
                is_absolute(root),
                "target_path_root",
                "it is an absolute path other than /",
            );
            report.require(
                self.containers.is_empty(),
                "target_path_root",
                "mounts of a plugin in a container reach the agent from its own directory alone",
            );
        } else {
            report.require(
                self.endpoints.is_empty(),
                "target_path_root",
                "an unmanaged plugin needs a directory that does not move with work_dir",
            );
        }
        report.require(
            self.target_path_exists.is_none_or(|exists| !exists),
            "target_path_exists",
            "the plugin makes and removes its targets",
        );
    }

    fn check_endpoints(&self, report: &mut Report) {
        for (number, endpoint) in self.endpoints.iter().enumerate() {
            let at = format!("endpoints[{number}].endpoint");
            let path = endpoint.endpoint.strip_prefix("unix://");
            report.require(
                path.is_some_and(is_absolute),
                &at,
                "gRPC takes it for a host name unless it is unix:///PATH",
            );
            report.require(
                path.is_none_or(|path| path.len() <= LONGEST_SOCKET_PATH),
                &at,
                format!("the path of a socket has at most {LONGEST_SOCKET_PATH} bytes"),
            );
        }
        let serves = |service| {
            self.endpoints
                .iter()
                .any(|endpoint| endpoint.csi_service == service)
        };
        report.require(
            serves(Service::NodeService),
            "endpoints[].csi_service",
            "nothing serves NodeService",
        );
    }

    /// Returns the name under which an agent stores the plugin's files, together with the type.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_NAME)
    }
}

fn check_names(report: &mut Report, at: &str, plugin: &Plugin) {
    let field = |name: &str| {
        if at.is_empty() {
            name.to_owned()
        } else {
            format!("{at}.{name}")
        }
    };
    report.require(
        is_dotted(&plugin.r#type),
        field("type"),
        "letters, digits and _ between dots are allowed, and no hyphens",
    );
    report.require(
        is_token(plugin.name()),
        field("name"),
        "letters, digits and _ are allowed",
    );
}

/// Whether a text can be a role: parts joined by slashes, and not the default role.
fn is_role(role: &str) -> bool {
    let is_part = |part: &str| {
        !matches!(part, "" | "." | ".." | "*")
            && !part.starts_with('-')
            && !part.contains(|character: char| character.is_whitespace() || character.is_control())
    };
    role.split('/').all(is_part)
}
