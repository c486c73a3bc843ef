//! Flocker on one machine.
//!
//! [`Embedded`] serves the REST API of a Flocker control service over mutual TLS, and runs the agents of one or more
//! nodes on real storage: sparse files, loop devices, ext4. It is meant for single servers, for first experiments,
//! and for tests; nothing in it is distributed.
//!
//! It behaves as a real cluster does, also where that is surprising: state shows what the kernel's mount table
//! contains, deleted datasets are remembered permanently, and only the agents enforce leases. It refuses what would
//! lose data: it never attaches one backing file twice, and never shares a data directory.
//!
//! ```no_run
//! use flocker_embedded::{Embedded, Options};
//!
//! # async fn run() -> Result<(), flocker_embedded::Error> {
//! let flocker = Embedded::start(Options::new("/var/lib/flocker-embedded", "/etc/flocker")).await?;
//! println!("https://{} serves {} node(s)", flocker.address(), flocker.nodes().len());
//! flocker.stop().await
//! # }
//! ```
//!
//! `examples/move_a_dataset.rs` is a complete client. [`faults`] makes requests, agents, machines and the control service
//! fail, for tests of clients; [`pki`] issues certificates for more clients.
//!
//! # Features
//!
//! `vendored`, on by default, builds OpenSSL from source; without it the system's libssl is used.

mod agent;
mod api;
mod backend;
mod cluster;
mod counters;
mod data_dir;
mod embedded;
mod error;
pub mod faults;
#[cfg(test)]
#[path = "../tests/flocker/support/namespace.rs"]
mod namespace;
mod options;
pub mod pki;
mod routes;
mod server;
mod storage_status;
mod store;
mod tls;

pub use counters::{Counters, RequestKey};
pub use embedded::Embedded;
pub use error::Error;
pub use options::{Allocation, CertificateProfile, Io, MAX_NODES, NodeInfo, Options, Timing};
pub use storage_status::{AgentStep, DatasetState, PoolStatus, StorageStatus};
