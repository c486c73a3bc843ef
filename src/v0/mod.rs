//! The services of `csi.v0` (specification 0.3.0), as a facade over those of `csi.v1`.
//!
//! Mesos 1.6 and 1.7 support only this version. The facade translates a call to the equivalent call of `csi.v1`, keeps
//! its deadline, and translates the answer back, so callers of both versions share the same operations. Where the
//! versions differ in more than names, the module concerned documents it: who owns a target directory ([`node`]), and
//! how capabilities are validated ([`controller`]).

mod controller;
mod convert;
mod identity;
mod node;

use std::sync::Arc;

/// A service of `csi.v0` that forwards its calls to the one of `csi.v1`.
#[derive(Debug)]
pub(crate) struct Facade<S> {
    v1: Arc<S>,
}

impl<S> Facade<S> {
    /// Makes the facade of a service.
    pub(crate) fn new(v1: Arc<S>) -> Self {
        Self { v1 }
    }
}
