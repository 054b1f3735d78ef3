//! The service around the service.

use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use http::{HeaderValue, Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::Options;
use super::body::RecordBody;
use super::record::{End, Running};

/// A service whose requests are recorded; made by [`RequestLayer`](super::RequestLayer).
#[derive(Clone, Debug)]
pub struct RecordRequests<S> {
    inner: S,
    options: Options,
}

impl<S> RecordRequests<S> {
    pub(super) fn new(inner: S, options: Options) -> Self {
        Self { inner, options }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RecordRequests<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    S::Error: Display,
    ResBody: Body,
    ResBody::Error: Display,
{
    type Response = Response<RecordBody<ResBody>>;
    type Error = S::Error;
    type Future = RecordFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let running = Running::begin(&self.options, &request);
        request.extensions_mut().insert(running.id);
        let scope = running.context.enter();
        let future = self.inner.call(request);
        drop(scope);
        RecordFuture {
            future: Some(future),
            running: Some(running),
        }
    }
}

pin_project! {
    /// The future of a response. Dropped before there is one, the request is recorded as aborted.
    #[derive(Debug)]
    pub struct RecordFuture<F> {
        // `None` once it has ended.
        #[pin]
        future: Option<F>,
        running: Option<Running>,
    }

    impl<F> PinnedDrop for RecordFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _scope = this.running.as_ref().map(|running| running.context.enter());
            this.future.set(None);
        }
    }
}

impl<F, B, E> Future for RecordFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
    B::Error: Display,
    E: Display,
{
    type Output = Result<Response<RecordBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let scope = this.running.as_ref().map(|running| running.context.enter());
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            // Polled after its end, which no executor does.
            return Poll::Pending;
        };
        let result = ready!(future.poll(cx));
        this.future.set(None);
        drop(scope);
        let running = this.running.take();
        Poll::Ready(match result {
            Ok(mut response) => {
                let id = running.as_ref().map(|running| running.id);
                let id = id.and_then(|id| HeaderValue::from_str(id.as_str()).ok());
                if let Some(id) = id {
                    response.headers_mut().insert("x-request-id", id);
                }
                let status = response.status();
                Ok(response.map(|body| RecordBody::new(body, status, running)))
            }
            Err(error) => {
                if let Some(mut running) = running {
                    running.end(&End::Failed(&error));
                }
                Err(error)
            }
        })
    }
}
