//! A tonic server on a Unix socket that answers health checks of every gRPC client.
//!
//! ```text
//! cargo run -p grpc-authority --example health -- /tmp/health.sock
//! grpcurl -plaintext -unix -authority /tmp/health.sock /tmp/health.sock grpc.health.v1.Health/Check
//! ```

use std::error::Error;
use std::path::PathBuf;

use grpc_authority::AuthorityStream;
use tokio::net::UnixListener;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let socket = std::env::args_os().nth(1).map(PathBuf::from);
    let socket = socket.ok_or("usage: health SOCKET")?;
    let listener = UnixListener::bind(&socket)?;
    println!("serving on {}, until ctrl-c", socket.display());

    let (_reporter, health) = tonic_health::server::health_reporter();
    let connections = UnixListenerStream::new(listener).map(|accepted| accepted.map(AuthorityStream::new));
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for ctrl-c: {error}");
        }
    };
    Server::builder()
        .add_service(health)
        .serve_with_incoming_shutdown(connections, interrupted)
        .await?;
    std::fs::remove_file(socket)?;
    Ok(())
}
