//! A TCP proxy before a Flocker, which can be closed or stalled.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How connections are handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forwarding {
    /// They reach Flocker.
    Open,
    /// They are closed, and so are new ones.
    Closed,
    /// Their bytes are not forwarded, but they stay open.
    Stalled,
}

/// Forwards connections to an address while it is open.
pub(crate) struct TcpProxy {
    address: SocketAddr,
    forwarding: watch::Sender<Forwarding>,
    _connections: JoinSet<()>,
}

impl TcpProxy {
    pub(crate) async fn to(behind: SocketAddr) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), behind).await
    }

    /// As [`Self::to`], at a certain address.
    pub(crate) async fn at(address: SocketAddr, behind: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let forwarding = watch::Sender::new(Forwarding::Open);
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, behind, forwarding.subscribe()));
        Self {
            address,
            forwarding,
            _connections: connections,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn open(&self) {
        self.forwarding.send_replace(Forwarding::Open);
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn close(&self) {
        self.forwarding.send_replace(Forwarding::Closed);
    }

    /// Accepts connections but forwards nothing.
    pub(crate) fn stall(&self) {
        self.forwarding.send_replace(Forwarding::Stalled);
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr, forwarding: watch::Receiver<Forwarding>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(pass_on(client, behind, forwarding.clone()));
    }
}

async fn pass_on(mut client: TcpStream, behind: SocketAddr, mut forwarding: watch::Receiver<Forwarding>) {
    let found = *forwarding.borrow_and_update();
    match found {
        Forwarding::Closed => return,
        Forwarding::Stalled => {}
        Forwarding::Open => {
            let Ok(mut flocker) = TcpStream::connect(behind).await else {
                return;
            };
            tokio::select! {
                _ended = copy_bidirectional(&mut client, &mut flocker) => return,
                _changed = forwarding.changed() => {}
            }
        }
    }
    // A stalled proxy keeps its connections until it is opened or closed.
    let _changed = forwarding
        .wait_for(|forwarding| *forwarding != Forwarding::Stalled)
        .await;
}
