//! An embedded Flocker on real loop devices, asked as a client asks it. Needs root.

mod access;
mod api;
mod life;
mod restart;
mod support;
