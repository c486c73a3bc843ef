//! The services of `csi.v0` (specification 0.3.0), as a facade over those of `csi.v1`.
//!
//! Mesos 1.6 and 1.7 speak nothing else. A call becomes the call of `csi.v1` that means the same, with its deadline,
//! and its answer is translated back; so callers of both versions meet in the same operations. What differs in more
//! than names is said where it is done: who owns a target directory ([`node`]), and how capabilities are validated
//! ([`controller`]).

pub mod controller;
mod convert;
pub mod identity;
pub mod node;

use std::sync::Arc;

/// A service of `csi.v0` that passes its calls on to the one of `csi.v1`.
#[derive(Debug)]
pub struct Facade<S> {
    v1: Arc<S>,
}

impl<S> Facade<S> {
    /// Makes the facade of a service.
    pub fn new(v1: Arc<S>) -> Self {
        Self { v1 }
    }
}
