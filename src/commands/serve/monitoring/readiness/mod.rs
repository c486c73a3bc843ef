//! Whether the plugin can be used now, and why not: a list of checks.

mod check;
mod directories;
mod watch;

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use flocker_client::Credentials;
use tokio_util::sync::CancellationToken;

use crate::commands::serve::kubelet::RegistrationService;
use crate::commands::serve::parts::of_one_node;
use crate::commands::serve::services::Part;
use crate::config::Config;
use crate::flocker::cluster::{Cluster, Listed};
use crate::flocker::node_identity::NodeIdentity;
use crate::node::NodeConditions;
use crate::operation::Elapsed;
use crate::server::SocketState;
use check::{BOTH, Check};
use directories::Directories;

/// What readiness depends on.
pub(crate) struct Sources {
    pub(crate) shutdown: CancellationToken,
    pub(crate) registration: Option<RegistrationService>,
    pub(crate) cluster: Cluster,
    /// Which node this is, where the plugin serves it or only its volumes.
    pub(crate) identity: Option<NodeIdentity>,
    pub(crate) socket: SocketState,
}

/// Whether the plugin can be used now; clones share the state.
#[derive(Clone)]
pub(crate) struct Readiness {
    /// The conditions of the node service, if any; set once CSI is served.
    served: Arc<OnceLock<Option<NodeConditions>>>,
    sources: Arc<Sources>,
    /// Those of a node.
    directories: Option<Arc<Directories>>,
    serves_controller: bool,
    serves_node: bool,
    /// The services that cannot be used without the node.
    needs_node: &'static [Part],
}

impl Readiness {
    /// Creates the readiness of a plugin that does not serve yet.
    pub(crate) fn new(config: &Config, sources: Sources) -> Self {
        sources.cluster.log_outages();
        let node = &config.node;
        let directories = || Arc::new(Directories::new(node.state_dir.clone(), node.mount_root.clone()));
        Self {
            served: Arc::default(),
            sources: Arc::new(sources),
            directories: config.mode.serves_node().then(directories),
            serves_controller: config.mode.serves_controller(),
            serves_node: config.mode.serves_node(),
            needs_node: if of_one_node(config) { BOTH } else { &[Part::Node] },
        }
    }

    /// Records that the plugin serves CSI from now on, with a node service under these conditions, if any.
    pub(crate) fn serves(&self, node: Option<NodeConditions>) {
        // Said once.
        self.served.set(node).ok();
    }

    /// Returns all checks, in a fixed order.
    pub(crate) fn checks(&self) -> Vec<Check> {
        let node_checks = self.serves_node.then(|| {
            let (state_dir, mount_root) = self.directory_checks();
            [state_dir, mount_root, self.file_systems()]
        });
        let sources = &*self.sources;
        let checks = [self.stage(), self.socket(), self.flocker()]
            .into_iter()
            .chain([self.certificates()])
            .chain(sources.identity.as_ref().map(|identity| self.node(identity)))
            .chain(node_checks.into_iter().flatten())
            .chain(sources.registration.as_ref().map(kubelet));
        checks.collect()
    }

    /// Returns the state of the registration with the kubelet, where there is one.
    pub(crate) fn registration(&self) -> Option<&'static str> {
        let registration = self.sources.registration.as_ref()?;
        Some(registration.verdict().name())
    }

    /// Whether each of the services that are served can be used.
    pub(crate) fn is_ready(&self, checks: &[Check]) -> bool {
        let can_be_used = |part| checks.iter().all(|check| !check.fails(part));
        (!self.serves_controller || can_be_used(Part::Controller))
            && (!self.serves_node || can_be_used(Part::Node))
    }

    /// Returns why a restart of the plugin is the only remedy, if that is so.
    pub(crate) fn needs_restart(&self) -> Option<String> {
        self.sources.socket.fault()
    }

    fn stage(&self) -> Check {
        let found = if self.sources.shutdown.is_cancelled() {
            Err("the plugin is stopping".to_owned())
        } else if self.served.get().is_none() {
            Err("the plugin is starting: it does not serve CSI yet".to_owned())
        } else {
            Ok("CSI is served".to_owned())
        };
        Check::new("serving", BOTH, found)
    }

    fn socket(&self) -> Check {
        let found = match self.sources.socket.fault() {
            Some(fault) => Err(fault),
            None => Ok("clients reach the plugin".to_owned()),
        };
        Check::new("socket", BOTH, found)
    }

    /// A node that could read Flocker once serves what is staged without it. A plugin that was ready before the first answer
    /// would let a rolling upgrade continue to the next node even with an address at which no control service answers.
    fn flocker(&self) -> Check {
        let reads = self.sources.cluster.reads();
        let found = match reads.last_answer {
            Some(age) if self.sources.cluster.answers() == Some(true) => {
                Ok(format!("answered {} ago", Elapsed(age)))
            }
            _ => Err(self.sources.cluster.health()),
        };
        Check::new("flocker", self.needs_flocker(reads.last_answer.is_some()), found)
    }

    fn needs_flocker(&self, answered_before: bool) -> &'static [Part] {
        match (self.serves_controller, answered_before) {
            (_, false) => BOTH,
            (true, true) => &[Part::Controller],
            (false, true) => &[],
        }
    }

    fn certificates(&self) -> Check {
        let found = valid(&self.sources.cluster.credentials(), SystemTime::now());
        let answered = self.sources.cluster.reads().last_answer.is_some();
        Check::new("certificates", self.needs_flocker(answered), found)
    }

    fn node(&self, identity: &NodeIdentity) -> Check {
        let Some(node) = identity.known() else {
            let text = "it is not known which node of Flocker this machine is; the log says why";
            return Check::new("node", self.needs_node, Err(text.to_owned()));
        };
        match self.sources.cluster.listed(node) {
            Listed::Yes => Check::new("node", self.needs_node, Ok(format!("Flocker lists node {node}"))),
            Listed::No => {
                let text = format!(
                    "Flocker does not list node {node}, so it can mount no volume here: does flocker-dataset-agent run on this \
                     machine?"
                );
                Check::new("node", self.needs_node, Err(text))
            }
            // It has just started, or has not answered.
            Listed::Unknown => {
                let text = format!("it is not known whether Flocker lists node {node}");
                Check::new("node", &[], Err(text))
            }
        }
    }

    fn directory_checks(&self) -> (Check, Check) {
        let found = self
            .directories
            .as_ref()
            .and_then(|directories| directories.found());
        let (state_dir, mount_root) = match found {
            Some(found) => (found.state_dir, found.mount_root),
            None => (Err(NOT_CHECKED.to_owned()), Err(NOT_CHECKED.to_owned())),
        };
        let refusal = self.conditions().and_then(NodeConditions::refusal);
        let state_dir = match refusal {
            Some(refusal) => Err(format!("node calls are refused: {refusal}")),
            None => state_dir,
        };
        (
            Check::new("state_dir", &[Part::Node], state_dir),
            Check::new("mount_root", &[Part::Node], mount_root),
        )
    }

    fn file_systems(&self) -> Check {
        let found = match self.conditions().and_then(NodeConditions::obstacle) {
            Some(obstacle) => Err(obstacle),
            None => Ok("no call waits for one".to_owned()),
        };
        Check::new("file_systems", &[Part::Node], found)
    }

    fn conditions(&self) -> Option<&NodeConditions> {
        self.served.get().and_then(Option::as_ref)
    }
}

/// What is said of directories before the first look at them has ended.
const NOT_CHECKED: &str = "not checked yet";

fn kubelet(registration: &RegistrationService) -> Check {
    let found = match registration.obstacle() {
        Some(obstacle) => Err(obstacle),
        None => Ok("it has registered the plugin".to_owned()),
    };
    Check::new("kubelet", &[Part::Node], found)
}

/// Checks that the certificates are valid, and says which of them expires first.
fn valid(credentials: &Credentials, now: SystemTime) -> Result<String, String> {
    let ends = [
        ("the user's", credentials.user_not_after()),
        ("the cluster's", credentials.cluster_not_after()),
    ];
    let first = ends.into_iter().min_by_key(|(_, end)| *end);
    let Some((whose, end)) = first else {
        return Ok("there are none".to_owned());
    };
    if let Some(error) = credentials.out_of_date(now) {
        return Err(format!(
            "{error}: replace the files; the new certificates are loaded without a restart"
        ));
    }
    let date = humantime::format_rfc3339_seconds(end);
    Ok(format!("valid; {whose} expires first, on {date}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use flocker_embedded::CertificateProfile;
    use flocker_embedded::pki::{Authority, Role};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_expired_certificate_fails_the_check_with_its_name_and_date() {
        let authority = Authority::new(Uuid::new_v4(), CertificateProfile::V3).unwrap();
        let user = authority
            .issue_for(&Role::User("plugin".to_owned()), &(0..10))
            .unwrap();
        let credentials = Credentials::from_pem(
            &authority.certificate().to_pem().unwrap(),
            &user.certificate_pem().unwrap(),
            &user.key_pem().unwrap(),
        );
        let (credentials, now) = (credentials.unwrap(), SystemTime::now());
        let found = valid(&credentials, now).unwrap();
        assert!(
            found.starts_with("valid; the user's expires first, on 20"),
            "{found}"
        );
        let expired = valid(&credentials, now + Duration::from_secs(11 * 86_400)).unwrap_err();
        assert!(
            expired.starts_with("the user certificate expired on "),
            "{expired}"
        );
        let premature = valid(&credentials, now - Duration::from_secs(86_400)).unwrap_err();
        assert!(
            premature.contains("certificate is not valid before "),
            "{premature}"
        );
    }

    #[test]
    fn a_check_that_no_service_needs_is_a_warning() {
        let line = |needed_by, found| Check::new("flocker", needed_by, found).to_string();
        assert_eq!(line(BOTH, Ok("answered".to_owned())), "ok      flocker: answered");
        assert_eq!(
            line(&[Part::Node], Err("no\n answer".to_owned())),
            "failed  flocker: no answer"
        );
        assert_eq!(
            line(&[], Err("no answer".to_owned())),
            "warning flocker: no answer"
        );
    }
}
