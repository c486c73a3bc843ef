//! Keeps the calls of all connections within the limits of the server.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, poll_immediate};
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
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
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
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
        // The one that is ready is used, and its clone need not be.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        async move {
            // Until its request has arrived, a call costs no more than these lines.
            let (head, body) = request.into_parts();
            let body = match RequestBody::begin(body, share.clone()).await {
                Ok(body) => Body::new(body),
                Err(refused) => {
                    tracing::debug!(
                        "A request of {} is refused: {}",
                        head.uri.path(),
                        refused.message()
                    );
                    return Ok(refused.into_http());
                }
            };
            let response = inner.call(Request::from_parts(head, body));
            let (head, mut inner) = response.await?.into_parts();
            // Encoded at once: a decoded answer takes more memory, and its length is not known.
            let first = poll_immediate(poll_fn(|cx| Pin::new(&mut inner).poll_frame(cx))).await;
            let first = first.flatten();
            let data = first.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            let is_unread = data.is_some();
            if let Some(data) = data {
                if let Err(refused) = share.add_answer(data.len()) {
                    return Ok(refused.into_http());
                }
                if let Some(connection) = &connection {
                    connection.set_unread(true);
                }
            }
            let body = LimitedBody {
                first,
                is_unread,
                inner,
                connection,
                _share: share,
            };
            Ok(Response::from_parts(head, Body::new(body)))
        }
        .boxed()
    }
}

/// A response's body, with which the call ends.
struct LimitedBody {
    /// What is sent before `inner`.
    first: Option<Result<Frame<Bytes>, Status>>,
    is_unread: bool,
    inner: Body,
    connection: Option<CallOnConnection>,
    _share: CallShare,
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // The server asks for more only when the client has read what it was given.
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if std::mem::take(&mut self.is_unread)
            && let Some(connection) = &self.connection
        {
            connection.set_unread(false);
        }
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.first.is_some() {
            return SizeHint::default();
        }
        self.inner.size_hint()
    }
}
