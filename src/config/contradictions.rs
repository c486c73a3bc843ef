//! Settings that contradict each other.

use super::{Endpoint, PluginConfig};
use crate::volume::Topology;

impl PluginConfig {
    /// Returns why the settings contradict each other.
    pub(crate) fn problem(&self) -> Option<String> {
        self.exposed_endpoint().or_else(|| self.key_of_no_label())
    }

    /// Topology keys begin with the driver's name, and Kubernetes makes labels of them.
    fn key_of_no_label(&self) -> Option<String> {
        let is_part = |part: &str| !part.is_empty() && !part.starts_with('-') && !part.ends_with('-');
        let names_a_domain = self.driver_name.split('.').all(is_part);
        (self.topology != Topology::Off && !names_a_domain).then(|| {
            format!(
                "topology needs a driver_name that is a domain's name, in which every part between dots begins and ends \
                 with a letter or a digit, and {:?} is none; choose another driver_name, or topology = \"off\"",
                self.driver_name
            )
        })
    }

    fn exposed_endpoint(&self) -> Option<String> {
        let Endpoint::Tcp(_) = self.endpoint else {
            return None;
        };
        (!self.allow_unauthenticated_tcp).then(|| {
            format!(
                "endpoint: {} is a TCP port, where no client is authenticated: every user of this machine could mount over \
                 any directory and delete any volume. Use a Unix socket (endpoint = \"unix:///run/flocker-csi/csi.sock\"), \
                 or accept this with allow_unauthenticated_tcp = true (--allow-unauthenticated-tcp)",
                self.endpoint
            )
        })
    }
}
