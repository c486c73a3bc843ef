//! The text of an answer to a call that is not served here, which tonic leaves empty.

use std::fmt;
use std::sync::Arc;

use http::Response;
use tonic::body::Body;
use tonic::{Code, Status};

/// Says of a method that is not served, by its path, where it is.
#[derive(Clone)]
pub struct Unserved(pub Arc<dyn Fn(&str) -> String + Send + Sync>);

impl fmt::Debug for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unserved")
    }
}

impl Unserved {
    /// Adds the text to the answer to a call of `method` where it has none.
    pub(super) fn explain(&self, response: Response<Body>, method: &str) -> Response<Body> {
        match Status::from_header_map(response.headers()) {
            Some(status) if status.code() == Code::Unimplemented && status.message().is_empty() => {
                Status::unimplemented((self.0)(method)).into_http()
            }
            _ => response,
        }
    }
}
