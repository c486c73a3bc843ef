//! The answers of a real Flocker, compared with those of this one. `tests/data/README.md` describes the recording.

mod names;
mod oddities;
mod recording;
mod replay;
mod tls;
mod wire;

pub(crate) use recording::{Kind, exchanges, handshakes, observations};
