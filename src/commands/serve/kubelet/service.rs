//! The registration service: the plugin's answer to the kubelet, and the kubelet's verdict.

use std::sync::Arc;

use csi_proto::registration::registration_server::Registration;
use csi_proto::registration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::RegistrationSettings;

/// The kubelet's name for CSI plugins.
const KIND: &str = "CSIPlugin";
/// The versions of CSI for it; it accepts any 1.x, and no longer `csi.v0`.
const VERSIONS: [&str; 1] = ["1.0.0"];

/// What the kubelet says of a node whose label for the topology segment has another value than the plugin reports.
const LABEL_COLLISION: &str = "topology value collision";

/// The kubelet's last verdict on the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None since the socket was created.
    Awaited,
    /// It uses the plugin.
    Registered,
    /// It refuses the plugin, for this reason; it tries again by itself.
    Refused(String),
}

/// Describes the plugin to the kubelet and remembers its verdict, which clones share.
#[derive(Clone, Debug)]
pub(crate) struct RegistrationService {
    settings: Arc<RegistrationSettings>,
    verdict: watch::Sender<Verdict>,
}

impl Verdict {
    /// The names of all verdicts, for metrics.
    pub(crate) const NAMES: [&str; 3] = ["awaited", "registered", "refused"];

    /// Returns its name, for metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Awaited => "awaited",
            Self::Registered => "registered",
            Self::Refused(_) => "refused",
        }
    }
}

impl RegistrationService {
    /// Creates the service.
    pub(crate) fn new(settings: RegistrationSettings) -> Self {
        Self {
            settings: Arc::new(settings),
            verdict: watch::Sender::new(Verdict::Awaited),
        }
    }

    /// Returns its settings.
    pub(crate) fn settings(&self) -> &RegistrationSettings {
        &self.settings
    }

    /// Returns the kubelet's last verdict.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict.borrow().clone()
    }

    /// Forgets the verdict, as the kubelet has to register the plugin again.
    pub(super) fn await_again(&self) {
        self.verdict.send_replace(Verdict::Awaited);
    }

    /// Returns in one line why the kubelet cannot use the plugin.
    pub(crate) fn obstacle(&self) -> Option<String> {
        match &*self.verdict.borrow() {
            Verdict::Registered => None,
            Verdict::Awaited => Some(format!(
                "the kubelet has not registered the plugin: it has to watch the directory of {}",
                self.settings.socket
            )),
            Verdict::Refused(reason) => Some(format!(
                "the kubelet has refused to register the plugin: {reason}"
            )),
        }
    }
}

#[tonic::async_trait]
impl Registration for RegistrationService {
    async fn get_info(&self, _request: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(PluginInfo {
            r#type: KIND.to_owned(),
            name: self.settings.driver_name.clone(),
            endpoint: self.settings.endpoint.clone(),
            supported_versions: VERSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let RegistrationStatus {
            plugin_registered,
            error,
        } = request.into_inner();
        let RegistrationSettings {
            driver_name,
            endpoint,
            ..
        } = &*self.settings;
        if plugin_registered {
            tracing::info!("The kubelet has registered {driver_name}, which it reaches at {endpoint}");
            self.verdict.send_replace(Verdict::Registered);
        } else {
            let reason = one_line(&error);
            let advice = if reason.contains(LABEL_COLLISION) {
                "The Kubernetes node has the label of another Flocker node, as after the machine or Flocker's agent on it \
                 was installed again. Remove that label, whose key is in the reason: kubectl label node NODE KEY-"
                    .to_owned()
            } else {
                format!(
                    "It has to reach the plugin at {endpoint} (kubelet_endpoint: the path of the socket in the host's file \
                     system), no other plugin may have that driver_name on this node, and NodeGetInfo has to succeed, for \
                     which Flocker has to know this node"
                )
            };
            tracing::error!(
                "The kubelet has refused to register {driver_name}, so no pod on this node gets its volumes: {reason}. \
                 {advice}. The kubelet tries again by itself"
            );
            self.verdict.send_replace(Verdict::Refused(reason));
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}

/// The maximum length of a foreign text, in characters.
const LONGEST_REASON: usize = 1000;

/// Returns a foreign text as one line of limited length.
fn one_line(text: &str) -> String {
    let begin: String = text.chars().take(LONGEST_REASON).collect();
    let words: Vec<_> = begin.split_whitespace().collect();
    if words.is_empty() {
        "it gives no reason".to_owned()
    } else if begin.len() < text.len() {
        words.join(" ") + "…"
    } else {
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_becomes_one_line() {
        assert_eq!(one_line("no\n  such\r\n\tsocket "), "no such socket");
        assert_eq!(one_line(" \n"), "it gives no reason");
        assert_eq!(one_line(&"é".repeat(1000)), "é".repeat(1000));
        assert_eq!(one_line(&"é".repeat(1001)), "é".repeat(1000) + "…");
    }
}
