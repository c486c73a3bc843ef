//! The connection, which carries encoded messages unchanged.

use std::path::Path;

use bytes::Bytes;
use csi_proto::v1::{ListVolumesRequest, ListVolumesResponse};
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::commands::Rpc;
use crate::syntax::{Build, Invocation};
use crate::verbatim::Verbatim;
use crate::{Failure, answers, requests};

/// Makes the calls of a command line one after the other, and prints each answer as it arrives.
pub(crate) fn run(call: &Invocation, endpoint: &str) -> Result<(), Failure> {
    let endpoint = address(call.build, endpoint)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .map_err(|error| Failure::usage(error.to_string()))?
        .block_on(async {
            let channel = endpoint.connect_lazy();
            for (operand, message) in requests::messages(call) {
                let printed = if call.rpc == Rpc::ListVolumes && call.switch("paging") {
                    pages(&channel, call, &message).await?
                } else {
                    let answer = send(&channel, call, message).await?;
                    answers::print(call.build, call.rpc, &operand, &answer).map_err(unreadable)?
                };
                print!("{printed}");
            }
            Ok(())
        })
}

/// Parses an endpoint as the build does: dell's passes it to grpc-go's resolvers, which know only its `unix://` form.
fn address(build: Build, endpoint: &str) -> Result<Endpoint, Failure> {
    let unresolved = |message: String| Err(Failure { code: 14, message });
    let uri = if let Some(path) = endpoint.strip_prefix("unix://") {
        format!("unix://{path}")
    } else if let Some(address) = endpoint.strip_prefix("tcp://") {
        if build == Build::Dell {
            return unresolved(format!(
                "invalid target address {endpoint}: too many colons in address"
            ));
        }
        format!("http://{address}")
    } else if build == Build::Dell {
        return unresolved("name resolver error: produced zero addresses".to_owned());
    } else {
        let path = std::path::absolute(Path::new(endpoint));
        format!(
            "unix://{}",
            path.map_err(|error| Failure::usage(error.to_string()))?.display()
        )
    };
    Endpoint::from_shared(uri).map_err(|error| Failure::usage(error.to_string()))
}

/// Reads a list page by page.
async fn pages(channel: &Channel, call: &Invocation, first: &[u8]) -> Result<String, Failure> {
    let mut request = ListVolumesRequest::decode(first).map_err(unreadable)?;
    let mut printed = String::new();
    loop {
        let answer = send(channel, call, request.encode_to_vec()).await?;
        let page = ListVolumesResponse::decode(answer).map_err(unreadable)?;
        let volumes = page.entries.iter().filter_map(|entry| entry.volume.as_ref());
        printed.extend(volumes.map(answers::volume));
        if page.next_token.is_empty() {
            return Ok(printed);
        }
        request.starting_token = page.next_token;
    }
}

async fn send(channel: &Channel, call: &Invocation, message: Vec<u8>) -> Result<Bytes, Failure> {
    let refused = |status: Status| Failure {
        code: u8::try_from(i32::from(status.code())).unwrap_or(1),
        message: status.message().to_owned(),
    };
    let mut client = Grpc::new(channel.clone());
    client
        .ready()
        .await
        .map_err(|error| refused(Status::unavailable(error.to_string())))?;
    let mut request = Request::new(Bytes::from(message));
    request.set_timeout(call.timeout());
    let path = requests::path(call.rpc).parse().expect("it is a path");
    let answer = client.unary(request, path, Verbatim).await;
    answer.map(tonic::Response::into_inner).map_err(refused)
}

fn unreadable(error: impl std::error::Error) -> Failure {
    Failure::usage(error.to_string())
}
