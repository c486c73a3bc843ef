//! A client that sends any request, valid or not, and returns the answer unchanged.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;

use openssl::ssl::{SslConnector, SslFiletype, SslMethod};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_openssl::SslStream;

/// One connection, for all requests in succession.
pub(crate) struct Wire {
    stream: BufReader<SslStream<TcpStream>>,
    host: SocketAddr,
}

/// An unchanged answer.
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self
            .headers
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

impl Wire {
    /// Connects with the certificate of the plugin.
    pub(crate) async fn connect(address: SocketAddr, certificates: &Path) -> Self {
        let mut connector = SslConnector::builder(SslMethod::tls_client()).unwrap();
        connector.set_ca_file(certificates.join("cluster.crt")).unwrap();
        connector
            .set_certificate_file(certificates.join("plugin.crt"), SslFiletype::PEM)
            .unwrap();
        connector
            .set_private_key_file(certificates.join("plugin.key"), SslFiletype::PEM)
            .unwrap();
        let ssl = connector
            .build()
            .configure()
            .unwrap()
            .into_ssl("control-service")
            .unwrap();
        let mut stream = SslStream::new(ssl, TcpStream::connect(address).await.unwrap()).unwrap();
        Pin::new(&mut stream).connect().await.unwrap();
        Self {
            stream: BufReader::new(stream),
            host: address,
        }
    }

    /// Sends a request with exactly these headers and a `Host`, and reads the answer.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Reply {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head += "\r\n";
        self.stream.write_all(head.as_bytes()).await.unwrap();
        self.stream.write_all(body).await.unwrap();
        self.stream.flush().await.unwrap();
        let mut reply = self.head().await;
        while reply.status < 200 {
            reply = self.head().await;
        }
        if method != "HEAD" {
            reply.body = self.body(&reply).await;
        }
        reply
    }

    async fn head(&mut self) -> Reply {
        let line = self.line().await;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let mut reply = Reply {
            status: status.unwrap_or_else(|| panic!("no status in {line:?}")),
            headers: Vec::new(),
            body: Vec::new(),
        };
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return reply;
            }
            let (name, value) = line.split_once(": ").unwrap();
            reply.headers.push((name.to_owned(), value.to_owned()));
        }
    }

    async fn body(&mut self, reply: &Reply) -> Vec<u8> {
        if let Some(length) = reply.header("Content-Length") {
            return self.bytes(length.parse().unwrap()).await;
        }
        assert_eq!(reply.header("Transfer-Encoding"), Some("chunked"));
        let mut body = Vec::new();
        loop {
            let length = usize::from_str_radix(&self.line().await, 16).unwrap();
            body.extend(self.bytes(length).await);
            assert_eq!(self.line().await, "", "a chunk ends with its line");
            if length == 0 {
                return body;
            }
        }
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).await.unwrap();
        assert!(length > 0, "the connection was closed");
        line.truncate(line.trim_end_matches("\r\n").len());
        line
    }

    async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }
}
