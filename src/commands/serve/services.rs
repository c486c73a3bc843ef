//! The services of the plugin's endpoint: CSI in both versions, with health and reflection.

use std::sync::Arc;
use std::time::Duration;

use csi_proto::v1::controller_server::{Controller, ControllerServer};
use csi_proto::v1::identity_server::{self, IdentityServer};
use csi_proto::v1::node_server::{Node, NodeServer};
use tokio_util::sync::CancellationToken;

use crate::server::{
    self, Health, Limits, Listener, RpcLogLayer, ServeError, ServingNode, Unserved, reflection,
};
use crate::telemetry::Metrics;
use crate::v0::Facade;

/// The servers of the older version.
mod v0 {
    pub(super) use csi_proto::v0::controller_server::ControllerServer;
    pub(super) use csi_proto::v0::identity_server::IdentityServer;
    pub(super) use csi_proto::v0::node_server::NodeServer;
}

/// A part of the plugin whose health clients can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The plugin as a whole, which the health protocol calls by the empty name.
    Plugin,
    /// Identity, in both versions of CSI.
    Identity,
    /// Controller, in both versions.
    Controller,
    /// Node, in both versions.
    Node,
}

impl Part {
    /// Returns the names of its services, those of newer versions first.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Plugin => &[""],
            Self::Identity => &["csi.v1.Identity", "csi.v0.Identity"],
            Self::Controller => &["csi.v1.Controller", "csi.v0.Controller"],
            Self::Node => &["csi.v1.Node", "csi.v0.Node"],
        }
    }
}

/// The services of CSI that one process offers, as its mode says.
#[derive(Clone, Debug)]
pub struct Services<I, C, N> {
    /// Identity, which every process offers.
    pub identity: I,
    /// Controller, unless the mode is `node`.
    pub controller: Option<C>,
    /// Node, unless the mode is `controller`.
    pub node: Option<N>,
    /// Where the calls are measured.
    pub metrics: Metrics,
    /// The node that serves calls of the Node service.
    pub serving_node: ServingNode,
}

impl<I: identity_server::Identity, C: Controller, N: Node> Services<I, C, N> {
    /// Returns the health of the plugin and of these services, all of them serving.
    pub async fn health(&self) -> Health {
        Health::new(Part::Plugin.names().iter().copied().chain(self.names())).await
    }

    /// Serves on `listener` as [`server::serve`] does.
    ///
    /// # Errors
    /// Those of [`server::serve`].
    pub async fn serve(
        self,
        listener: Listener,
        limits: Limits,
        health: Health,
        shutdown: CancellationToken,
        grace: Duration,
    ) -> Result<(), ServeError> {
        let names: Vec<_> = self.names().collect();
        let reflection = reflection::describe(csi_proto::FILE_DESCRIPTOR_SET, names.clone());
        let identity = Arc::new(self.identity);
        let controller = self.controller.map(Arc::new);
        let node = self.node.map(Arc::new);
        let log = RpcLogLayer {
            metrics: Some(self.metrics),
            node: Some(self.serving_node),
            unserved: Some(Unserved(Arc::new(move |method| unserved(method, &names)))),
        };
        let router = server::builder(limits, log)
            .add_service(v0::IdentityServer::new(Facade::new(Arc::clone(&identity))))
            .add_optional_service(controller.clone().map(Facade::new).map(v0::ControllerServer::new))
            .add_optional_service(node.clone().map(Facade::new).map(v0::NodeServer::new))
            .add_service(IdentityServer::from_arc(identity))
            .add_optional_service(controller.map(ControllerServer::from_arc))
            .add_optional_service(node.map(NodeServer::from_arc))
            .add_service(health.server())
            .add_service(reflection.v1)
            .add_service(reflection.v1alpha);
        server::serve(listener, router, limits, health.close(), shutdown, grace).await
    }

    /// Returns the names of the services that are offered.
    fn names(&self) -> impl Iterator<Item = &'static str> + use<I, C, N> {
        let controller = self.controller.is_some().then_some(Part::Controller);
        let node = self.node.is_some().then_some(Part::Node);
        let parts = [Some(Part::Identity), controller, node].into_iter().flatten();
        parts.flat_map(Part::names).copied()
    }
}

/// Says of a method that none of the services `offered` has, where it is.
fn unserved(method: &str, offered: &[&str]) -> String {
    let (service, name) = method
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((method, ""));
    if offered.contains(&service) {
        return format!("{service} has no RPC {name:?} in the versions of CSI that this plugin serves");
    }
    let other = [(Part::Controller, "controller"), (Part::Node, "node")];
    match other
        .into_iter()
        .find(|(part, _)| part.names().contains(&service))
    {
        Some((_, mode)) => format!(
            "{name} is not served here: this process was started with another mode than \"{mode}\" or \"all\", and the \
             service {service} is at the endpoint of a plugin with one of these; here are {}",
            offered.join(", ")
        ),
        None => format!("there is no service {service:?} here, but {}", offered.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_not_served_names_where_it_is() {
        let node = ["csi.v1.Identity", "csi.v1.Node"];
        let text = unserved("/csi.v1.Controller/CreateVolume", &node);
        assert!(
            text.contains("CreateVolume is not served here") && text.contains("mode than \"controller\""),
            "{text}"
        );
        assert!(text.ends_with("here are csi.v1.Identity, csi.v1.Node"), "{text}");
        let text = unserved("/csi.v1.Node/NodeGetPolicy", &node);
        assert!(
            text.starts_with("csi.v1.Node has no RPC \"NodeGetPolicy\""),
            "{text}"
        );
        for method in ["/csi.v2.Node/NodeGetInfo", "/", "", "x", "/x/"] {
            assert!(
                unserved(method, &node).starts_with("there is no service"),
                "{method}"
            );
        }
    }
}
