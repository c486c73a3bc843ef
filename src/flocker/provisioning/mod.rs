//! Volumes as datasets: found if they exist, else placed on a node and declared to Flocker.
//!
//! `CreateVolume` does so, and a node when a name is used for the first time. Both derive the dataset's id from the name,
//! so the second call finds the dataset of the first.

mod backing_volume;
mod declaration;
mod existing_volume;
mod placement;
mod pool;
mod pool_usage;
mod provisioner;
mod read_to_place;
mod request;
mod reservations;
mod settings;
mod unclear;

pub(crate) use placement::Placement;
pub use pool::Pool;
pub(crate) use pool_usage::{PoolUsage, reported_size, size_in};
pub use provisioner::Provisioner;
pub(crate) use request::{NewVolume, Volume};
pub use settings::{ProvisionWait, ProvisioningSettings, Scope};
