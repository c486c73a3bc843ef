//! A client with the certificate of the plugin.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use reqwest::header::HeaderMap;
use reqwest::{Certificate, Identity, Method, RequestBuilder};
use serde_json::Value;
use tokio::task::JoinHandle;

#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
}

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr, certificates: &Path) -> Self {
        let read = |name: &str| fs::read(certificates.join(name)).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(&read("cluster.crt")).unwrap()])
            .identity(Identity::from_pkcs8_pem(&read("plugin.crt"), &read("plugin.key")).unwrap())
            .resolve("control-service", address)
            .build()
            .unwrap();
        Self {
            http,
            base: format!("https://control-service:{}", address.port()),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, |request| request).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, |request| request).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.request(Method::POST, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        complete: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Answer {
        self.attempt(method, path, complete).await.unwrap()
    }

    /// Sends a request that may receive no answer.
    pub(crate) async fn attempt(
        &self,
        method: Method,
        path: &str,
        complete: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> reqwest::Result<Answer> {
        let request = complete(self.http.request(method, format!("{}{path}", self.base)));
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Answer {
            status,
            headers,
            text: response.text().await?,
        })
    }

    /// Sends a request that is answered later, if at all.
    pub(crate) fn post_later(&self, path: &str, body: Value) -> JoinHandle<reqwest::Result<Answer>> {
        let (client, path) = (self.clone(), path.to_owned());
        tokio::spawn(async move {
            client
                .attempt(Method::POST, &path, |request| request.json(&body))
                .await
        })
    }
}
