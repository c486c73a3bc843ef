//! A typed, asynchronous client of the Flocker control service's REST API.
//!
//! Flocker manages *datasets* (volumes) and moves them between the *nodes* of a cluster. Its control service holds the
//! *configuration* (what is wanted) and the *state* (what the nodes report), and serves both over HTTPS with
//! certificates on both sides. [`Client`] has one method for each endpoint and returns typed values.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use flocker_client::{Client, Credentials, ClientSettings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::load(
//!     Path::new("/etc/flocker/cluster.crt"),
//!     Path::new("/etc/flocker/plugin.crt"),
//!     Path::new("/etc/flocker/plugin.key"),
//! )?;
//! let settings = ClientSettings::new("https://flocker.example:4523".parse()?, credentials);
//! let client = tokio::task::spawn_blocking(move || Client::new(settings)).await??;
//!
//! for dataset in client.list_datasets().await?.datasets {
//!     println!("{} belongs on {}", dataset.dataset_id, dataset.primary);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Certificates
//!
//! `flocker-ca` makes X.509 *version 1* certificates with version 3 extensions, which OpenSSL verifies and most other
//! libraries refuse. So this crate is bound to OpenSSL; proper version 3 certificates work as well. Only the cluster's
//! own authority is trusted, the system's authorities are not. The certificate of the control service is verified
//! against a fixed name, by default `control-service`, which all of them carry; the name of the host does not matter.
//!
//! # Connections
//!
//! A new connection costs the control service more than most requests do. So all requests of a client share a few
//! connections and queue for them. Reads and writes queue separately, so that a slow write delays no read. Connections
//! are kept open permanently. The host is looked up for each new one.
//!
//! # Errors
//!
//! [`Error::outcome`] says what a failure means for the request. Only Flocker's own refusal is final: the answer of a
//! proxy, or of another service at the address, never counts as Flocker's ([`Answered`]).
//!
//! A read is sent a second time if its connection was closed, which happens to connections that were idle. A write is
//! never sent twice: see [`Error::is_unclear`].
//!
//! # Features
//!
//! `vendored` (on by default) builds OpenSSL from source. Without it the crate uses the system's libssl.

#![forbid(unsafe_code)]

mod answer;
mod client;
mod connection_limit;
mod control_service;
mod credentials;
mod endpoint;
mod entry;
mod error;
mod fields;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod list;
mod model;
mod observer;
mod resolver;
mod secrets;
#[cfg(test)]
mod tests;
mod transport;

pub use self::{
    client::{Client, ClientSettings},
    control_service::{ControlService, ControlServiceError},
    credentials::{Credentials, CredentialsError, CredentialsFile, CredentialsProblem},
    entry::{EntryFault, Listed, Unreadable, UnreadableEntry},
    error::{Answered, ApiCall, Cause, DecodeError, Error, Refusal, RequestOutcome, TlsKind, TransportKind},
    model::{
        Acquired, AcquiredKind, Dataset, DatasetState, Datasets, DeletedGeneration, Extensions, Lease,
        NewDataset, Node, TakenId, UnreadableParts,
    },
    observer::{RequestEnd, RequestObserver, RequestTrace},
    secrets::without_credentials,
};
