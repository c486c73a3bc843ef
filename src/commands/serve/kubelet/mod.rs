//! The registration of the plugin with the kubelet of this node, without a sidecar.
//!
//! The kubelet watches a directory for sockets. It calls `GetInfo` at each of them, then `NodeGetInfo` of the plugin
//! itself, and reports the result by `NotifyRegistrationStatus`. It repeats this after its own restart and whenever the
//! socket is a new one. Read in Kubernetes 1.37.2 (`pkg/kubelet/pluginmanager`, `pkg/volume/csi`).

mod registrar;
mod service;
mod settings;

pub(crate) use registrar::Registrar;
pub(crate) use service::{RegistrationService, Verdict};
pub(crate) use settings::RegistrationSettings;
