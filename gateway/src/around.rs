//! A layer from a function: it gets the request and the rest of the stack, and gives a response.
//!
//! All layers of the gateway are such functions. They never fail: what goes wrong is a response with a status.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service, ServiceExt as _};

type Call = dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync;

/// The rest of the stack. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Inner(Arc<Call>);

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inner")
    }
}

impl Inner {
    /// The end of a stack.
    pub fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
        S::Future: Send,
    {
        Self(Arc::new(move |request| {
            let answer = service.clone().oneshot(request);
            async move {
                match answer.await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
            .boxed()
        }))
    }

    /// Passes the request on.
    pub fn pass(&self, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
        (self.0)(request)
    }
}

impl Service<Request<Body>> for Inner {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = futures::future::Map<
        BoxFuture<'static, Response<Body>>,
        fn(Response<Body>) -> Result<Response<Body>, Infallible>,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.pass(request).map(Ok)
    }
}

/// A layer made of `wrap`.
pub(crate) fn around<F, Fut>(wrap: F) -> Around<F>
where
    F: Fn(Request<Body>, Inner) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    Around(wrap)
}

/// Made by [`around`].
#[derive(Clone)]
pub(crate) struct Around<F>(F);

impl<F, Fut> Layer<Inner> for Around<F>
where
    F: Fn(Request<Body>, Inner) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    type Service = Inner;

    fn layer(&self, inner: Inner) -> Inner {
        let wrap = self.0.clone();
        Inner(Arc::new(move |request| wrap(request, inner.clone()).boxed()))
    }
}
