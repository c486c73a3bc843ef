//! A service that is built when it is called for the first time.

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use futures::future::{Either, Ready, ready};
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

type Build<S> = Box<dyn FnOnce() -> Result<S, Status> + Send>;

/// A service that takes memory, and that most processes are never asked for. Clones share it.
///
/// Where it cannot be built, its calls get the status that says why.
pub(crate) struct OnFirstCall<S> {
    service: Arc<LazyLock<Result<S, Status>, Build<S>>>,
}

impl<S> OnFirstCall<S> {
    /// Makes a service that `build` builds.
    pub(super) fn new(build: impl FnOnce() -> Result<S, Status> + Send + 'static) -> Self {
        Self {
            service: Arc::new(LazyLock::new(Box::new(build))),
        }
    }
}

impl<S> Clone for OnFirstCall<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
        }
    }
}

impl<S: NamedService> NamedService for OnFirstCall<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for OnFirstCall<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Self::Response, Infallible>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The servers that tonic generates are always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match &**self.service {
            Ok(service) => Either::Left(service.clone().call(request)),
            Err(status) => Either::Right(ready(Ok(status.clone().into_http()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Answers every call with an empty response.
    #[derive(Clone)]
    struct Empty;

    impl Service<Request<Body>> for Empty {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Response::new(Body::empty())))
        }
    }

    async fn call(service: &mut OnFirstCall<Empty>) -> Response<Body> {
        service.call(Request::new(Body::empty())).await.unwrap()
    }

    #[tokio::test]
    async fn it_is_built_by_the_first_call_and_by_no_other() {
        let built = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&built);
        let mut service = OnFirstCall::new(move || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Empty)
        });
        assert_eq!(built.load(Ordering::SeqCst), 0);
        call(&mut service.clone()).await;
        call(&mut service).await;
        assert_eq!(built.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_service_that_cannot_be_built_answers_why() {
        let mut service = OnFirstCall::new(|| Err(Status::internal("no descriptors")));
        let answer = call(&mut service).await;
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.message(), "no descriptors");
    }
}
