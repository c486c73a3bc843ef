//! A typed, asynchronous client of the Flocker control service's REST API.
//!
//! Flocker keeps *datasets* (volumes) and moves them between the *nodes* of a cluster. Its control service
//! holds the *configuration* (what is wanted) and the *state* (what the nodes report), and offers both over
//! HTTPS with certificates on both sides. [`Client`] has one method for each endpoint; everything it returns
//! is typed, and [`Error`] tells apart what a caller has to treat differently.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use flocker_client::{Client, Credentials, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let credentials = Credentials::load(
//!     Path::new("/etc/flocker/cluster.crt"),
//!     Path::new("/etc/flocker/plugin.crt"),
//!     Path::new("/etc/flocker/plugin.key"),
//! )?;
//! let settings = Settings::new("https://flocker.example:4523".parse()?, credentials);
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
//! Every certificate that `flocker-ca` makes is an X.509 *version 1* certificate that carries version 3
//! extensions, which OpenSSL verifies and most other libraries refuse. So this crate is bound to OpenSSL;
//! proper version 3 certificates work as well. Only the cluster's own authority is trusted, the system's are
//! not. The certificate of the control service is verified against a fixed name, by default
//! `control-service`, which all of them carry, whatever host the service runs on.
//!
//! # Connections
//!
//! A new connection costs the control service more than most requests do. So all requests of a client share a few
//! connections, and wait for their turn: one for anything that takes long must not keep the rest waiting, so reads
//! and writes wait apart. Connections are kept for good. The host is looked up for each new one.
//!
//! # Retries
//!
//! A read is sent once more if the connection was closed under it, which happens to connections that were
//! kept for a while. A write is never sent twice: see [`Error::is_unclear`].

#![forbid(unsafe_code)]

mod answer;
mod client;
mod control_service;
mod credentials;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod model;
mod places;
mod resolver;
#[cfg(test)]
mod tests;
mod transport;

pub use self::{
    client::{Client, Settings},
    control_service::{ControlService, ControlServiceError},
    credentials::{Credentials, CredentialsError, CredentialsFile, CredentialsProblem},
    error::{Answered, Call, Cause, DecodeError, Error, Refusal, TlsKind, TransportKind},
    model::{Acquired, AcquiredKind, Dataset, DatasetState, Datasets, Lease, NewDataset, Node},
};
