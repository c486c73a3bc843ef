//! A client that does not speak HTTP/2. It has to end its own connection only.

use flocker_csi::config::Endpoint;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::support::PATIENCE;
use crate::support::flocker::Flocker;
use crate::support::machine::Machine;
use crate::support::namespace::in_own_namespace;

const GARBAGE: [&[u8]; 4] = [
    b"GET / HTTP/1.1\r\nHost: csi\r\n\r\n",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0",
];

#[test]
fn what_is_not_http2_ends_its_own_connection_only() {
    in_own_namespace(|| async {
        let flocker = Flocker::start(1).await;
        let machine = Machine::new(&flocker, 1);
        let plugin = machine.plugin().await;
        let Endpoint::Unix(socket) = &machine.config.plugin.endpoint else {
            panic!("tests use a socket");
        };
        for garbage in GARBAGE {
            let mut client = UnixStream::connect(socket).await.unwrap();
            client.write_all(garbage).await.unwrap();
            client.shutdown().await.unwrap();
            let closed = timeout(PATIENCE, client.read_to_end(&mut Vec::new())).await;
            closed.expect("the plugin closes the connection").ok();
            plugin.csi.create("data").await;
        }
        plugin.stop().await;
    });
}
