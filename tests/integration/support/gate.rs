//! The way to a Flocker, which can be closed.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// They reach Flocker.
    Open,
    /// They are closed, and so are new ones.
    Closed,
    /// Nothing is passed on, and nobody is told.
    Silent,
}

/// Passes connections on to an address, as long as it is open.
pub(crate) struct Gate {
    address: SocketAddr,
    way: watch::Sender<Way>,
    _connections: JoinSet<()>,
}

impl Gate {
    pub(crate) async fn to(behind: SocketAddr) -> Self {
        Self::at((Ipv4Addr::LOCALHOST, 0).into(), behind).await
    }

    /// As [`Self::to`], at a certain address.
    pub(crate) async fn at(address: SocketAddr, behind: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = watch::Sender::new(Way::Open);
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, behind, way.subscribe()));
        Self {
            address,
            way,
            _connections: connections,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn open(&self) {
        self.way.send_replace(Way::Open);
    }

    /// Ends all connections and refuses new ones.
    pub(crate) fn close(&self) {
        self.way.send_replace(Way::Closed);
    }

    /// Accepts whatever comes and answers nothing.
    pub(crate) fn fall_silent(&self) {
        self.way.send_replace(Way::Silent);
    }
}

async fn accept(listener: TcpListener, behind: SocketAddr, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(pass_on(client, behind, way.clone()));
    }
}

async fn pass_on(mut client: TcpStream, behind: SocketAddr, mut way: watch::Receiver<Way>) {
    let found = *way.borrow_and_update();
    match found {
        Way::Closed => return,
        Way::Silent => {}
        Way::Open => {
            let Ok(mut flocker) = TcpStream::connect(behind).await else {
                return;
            };
            tokio::select! {
                _ended = copy_bidirectional(&mut client, &mut flocker) => return,
                _changed = way.changed() => {}
            }
        }
    }
    // What fell silent keeps its connections until something else is decided.
    let _changed = way.wait_for(|way| *way != Way::Silent).await;
}
