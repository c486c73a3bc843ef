//! What the plugin counts about itself.

mod counters;

pub use counters::{Counter, Counters};
