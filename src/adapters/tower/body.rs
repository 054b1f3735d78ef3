//! The body of a response, which tells when the response has been sent.

use std::fmt::Display;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::record::{End, Running};

pin_project! {
    /// A body that is recorded when it has ended, or is dropped.
    #[derive(Debug)]
    pub struct RecordBody<B> {
        // `None` while it is being dropped.
        #[pin]
        inner: Option<B>,
        // `None` once it has ended.
        running: Option<Running>,
    }

    impl<B> PinnedDrop for RecordBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _scope = this.running.as_ref().map(|running| running.context.enter());
            this.inner.set(None);
        }
    }
}

impl<B: Body> RecordBody<B> {
    pub(super) fn new(inner: B, status: StatusCode, mut running: Option<Running>) -> Self {
        if let Some(running) = &mut running {
            running.head(status, inner.size_hint().exact());
        }
        // A server does not ask a body that has ended for anything.
        if inner.is_end_stream() {
            finish(&mut running);
        }
        Self {
            inner: Some(inner),
            running,
        }
    }
}

fn finish(running: &mut Option<Running>) {
    if let Some(mut running) = running.take() {
        running.sent(0);
        running.end(&End::Completed);
    }
}

impl<B> Body for RecordBody<B>
where
    B: Body,
    B::Error: Display,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let scope = this.running.as_ref().map(|running| running.context.enter());
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = ready!(inner.as_mut().poll_frame(cx));
        drop(scope);
        match &polled {
            Some(Ok(frame)) => {
                if let (Some(running), Some(data)) = (&mut this.running, frame.data_ref()) {
                    running.sent(bytes::Buf::remaining(data));
                }
                if inner.is_end_stream() {
                    finish(this.running);
                }
            }
            Some(Err(error)) => {
                if let Some(mut running) = this.running.take() {
                    running.end(&End::Failed(error));
                }
            }
            None => finish(this.running),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.inner.as_ref().map(Body::size_hint);
        hint.unwrap_or_else(|| SizeHint::with_exact(0))
    }
}
