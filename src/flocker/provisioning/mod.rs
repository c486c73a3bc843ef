//! Volumes as datasets: found if they are there, else placed on a node and declared to Flocker.
//!
//! `CreateVolume` does it for whoever asks by name, and a node for a volume that is used for the first time. Both
//! derive the dataset's id from the name, so that whoever comes second finds what the first one made.

mod backing;
mod existing;
mod pool;
mod provisioner;
mod request;
mod settings;
mod unclear;
mod usage;

pub use pool::Pool;
pub use provisioner::Provisioner;
pub use request::{NewVolume, Volume};
pub use settings::{ProvisionWait, Scope, Settings};
pub use usage::{Usage, size_in};
