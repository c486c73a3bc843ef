use std::{fmt, time::Duration};

use reqwest::Method;

use crate::ControlService;

/// A request, as far as an error message tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    service: ControlService,
    method: Method,
    path: String,
}

impl Call {
    pub(crate) fn new(target: &Target, method: Method, path: impl Into<String>) -> Self {
        Self {
            service: target.service.clone(),
            method,
            path: path.into(),
        }
    }

    /// Returns the control service the request was meant for.
    pub fn service(&self) -> &ControlService {
        &self.service
    }

    /// Returns the method, such as `POST`.
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// Returns the path, such as `/v1/configuration/datasets`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Tells whether the request changes anything at the control service.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What a client was told about its control service.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) service: ControlService,
    pub(crate) server_name: String,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
}
