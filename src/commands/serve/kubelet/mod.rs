//! How the kubelet of this node learns of the plugin, without a sidecar.
//!
//! The kubelet watches a directory for sockets. It asks the service behind each of them what it is, then the plugin
//! itself for its node, and says what has come of that. It does so again when it has been restarted and when the socket
//! is a new one. Read in Kubernetes 1.37.2 (`pkg/kubelet/pluginmanager`, `pkg/volume/csi`).

mod registrar;
mod service;
mod settings;

pub use registrar::Registrar;
pub use service::{RegistrationService, Verdict};
pub use settings::Settings;
