//! Keeps the calls of all connections within the limits of the server.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

use super::connections::{CallOnConnection, ConnectionUse};
use super::limits::{CallBudget, CallShare};
use super::request_body::RequestBody;

/// Wraps the services in [`LimitedService`].
#[derive(Clone, Debug)]
pub struct CallLimitLayer {
    pub(super) budget: CallBudget,
}

impl<S> Layer<S> for CallLimitLayer {
    type Service = LimitedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        LimitedService {
            inner,
            budget: self.budget.clone(),
        }
    }
}

/// Services whose calls are refused above the limit, and whose messages are bounded in length and time.
#[derive(Clone, Debug)]
pub struct LimitedService<S> {
    inner: S,
    budget: CallBudget,
}

impl<S> Service<Request<Body>> for LimitedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let connection = request.extensions().get::<ConnectionUse>();
        let connection = connection.map(ConnectionUse::begin_call);
        let share = self.budget.share();
        let request = request.map(|body| Body::new(RequestBody::new(body, share.clone())));
        let response = self.inner.call(request);
        async move {
            let response = response.await?;
            Ok(response.map(|inner| {
                Body::new(LimitedBody {
                    inner,
                    _share: share,
                    _connection: connection,
                })
            }))
        }
        .boxed()
    }
}

/// A response's body, with which the call ends.
struct LimitedBody {
    inner: Body,
    _share: CallShare,
    _connection: Option<CallOnConnection>,
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
