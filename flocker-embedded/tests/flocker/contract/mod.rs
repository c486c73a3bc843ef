//! What a real Flocker answered, and whether this one answers the same. `tests/data/README.md` says what the recording
//! holds.

mod names;
mod recording;
mod replay;
mod tls;
mod wire;

pub(crate) use recording::{Kind, exchanges, handshakes, sights};
