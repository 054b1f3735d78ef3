//! Futures that take their context along.
#![expect(unsafe_code, reason = "polls a future that is a field")]

use std::pin::Pin;
use std::task;

use super::Context;

/// A future in a context: see [`Context::in_task`].
#[derive(Debug)]
#[must_use = "futures do nothing unless they are polled"]
pub struct InContext<F> {
    context: Context,
    /// Pinned with `self`; `None` once it was dropped.
    future: Option<F>,
}

impl<F> InContext<F> {
    pub(super) fn new(context: &Context, future: F) -> Self {
        Self {
            context: *context,
            future: Some(future),
        }
    }

    /// The context.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The future, as firmly pinned as the whole.
    fn future(self: Pin<&mut Self>) -> Pin<&mut Option<F>> {
        // SAFETY: `future` is pinned with `self`: nothing moves it out (there is no such function,
        // and `Drop` sets it to `None` in its place), the struct is not packed, and it is `Unpin`
        // only if `F` is, because it has no `Unpin` of its own.
        unsafe { self.map_unchecked_mut(|this| &mut this.future) }
    }
}

impl<F: Future> Future for InContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> task::Poll<F::Output> {
        let _scope = self.context.enter();
        match self.future().as_pin_mut() {
            Some(future) => future.poll(cx),
            // Not reached: only `drop` takes it.
            None => task::Poll::Pending,
        }
    }
}

impl<F> Drop for InContext<F> {
    fn drop(&mut self) {
        let _scope = self.context.enter();
        // SAFETY: it is being dropped, and nobody moves it before or after.
        let this = unsafe { Pin::new_unchecked(self) };
        this.future().set(None);
    }
}
