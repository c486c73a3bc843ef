use std::{fmt, time::Duration};

use reqwest::Method;

use crate::{ControlService, endpoint::Endpoint};

/// A request to the control service, as an error message describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiCall {
    service: ControlService,
    endpoint: Endpoint,
    method: Method,
    path: String,
}

impl ApiCall {
    pub(crate) fn new(target: &Target, endpoint: Endpoint) -> Self {
        Self {
            service: target.service.clone(),
            endpoint,
            method: endpoint.method(),
            path: endpoint.path(),
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

    /// Returns whether the request changes something at the control service.
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.endpoint
    }
}

impl fmt::Display for ApiCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// The settings of a client that error messages mention.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) service: ControlService,
    pub(crate) server_name: String,
    /// Limit for a whole request.
    pub(crate) timeout: Duration,
    /// Limit for making a connection, TLS included.
    pub(crate) connect_timeout: Duration,
}
