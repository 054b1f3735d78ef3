//! What every record of a scope carries: ids of the trace, the request, the thread, the process.
//!
//! A [`Context`] is a small value. [`enter`](Context::enter) puts it in force on the calling thread
//! until the guard is dropped; every record that this thread pushes meanwhile, in any session,
//! carries its fields behind its own, before extra ones:
//!
//! | field | from |
//! |---|---|
//! | `trace_id`, `span_id` | [`Context::trace`] |
//! | these and `parent_span_id` | [`Context::continue_trace`] |
//! | `request_id` | [`Context::request_id`] |
//! | `thread_id`, `thread_name` | [`Context::thread`] |
//! | `process_id` | [`Context::process`] |
//! | any other name | [`Context::field`] |
//!
//! ```
//! use stormlog::context::{Context, TraceParent};
//!
//! let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
//! let mut context = Context::new().request_id("8f14e45f").thread();
//! if let Some(parent) = TraceParent::parse(header) {
//!     context = context.continue_trace(parent);
//! }
//! {
//!     let _scope = context.enter();
//!     // every record of this thread carries trace_id, span_id, parent_span_id, request_id,
//!     // thread_id and thread_name
//! }
//! ```
//!
//! A context that is entered inside of another one inherits what it does not set itself. An `async`
//! task takes its context along by [`in_task`](Context::in_task), which enters it around each poll.
//!
//! What it costs: a thread without a context pays nothing, not even a look whether there is one:
//! entering hides the ring of the thread from the quick path of its pushes. No allocation anywhere.

mod inline;
mod random;
mod scope;
mod task;
mod trace;

pub(crate) use inline::Inline;
pub(crate) use random::next_operation;
pub use scope::ContextGuard;
#[cfg(feature = "tracing")]
pub(crate) use scope::innermost_operation;
pub(crate) use scope::{active, begin_operation, end_operation, is_active};
pub use task::InContext;
pub use trace::{SpanId, TraceId, TraceParent};

use crate::record::Name;

/// Longest request id and longest value of [`Context::field`], in bytes; the rest is cut, and the
/// lines of the scope say `truncated`.
pub const TEXT_BYTES_MAX: usize = 64;
/// How many fields of its own a context can have; further ones are left out.
pub const OWN_FIELDS_MAX: usize = 4;

/// Fields for every record of a scope. See the [module](self).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Context {
    trace: Option<TraceParent>,
    parent: Option<SpanId>,
    request: Inline<TEXT_BYTES_MAX>,
    thread: bool,
    process: bool,
    own: [Option<(Name<'static>, Inline<TEXT_BYTES_MAX>)>; OWN_FIELDS_MAX],
    /// The operation that those begun in the scope belong to; 0 = none.
    operation: u64,
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

impl Context {
    /// A context without fields.
    pub const fn new() -> Self {
        Self {
            trace: None,
            parent: None,
            request: Inline::EMPTY,
            thread: false,
            process: false,
            own: [None; OWN_FIELDS_MAX],
            operation: 0,
        }
    }

    /// What is in force on the calling thread, to be taken elsewhere: its fields, and the operation
    /// that is running.
    pub fn current() -> Self {
        scope::current()
    }

    /// `trace_id` and `span_id`: a span of this program's own.
    #[must_use]
    pub fn trace(mut self, span: TraceParent) -> Self {
        (self.trace, self.parent) = (Some(span), None);
        self
    }

    /// Goes on with the trace of a caller: the same `trace_id`, the caller's span as
    /// `parent_span_id`, and a new, random `span_id`.
    #[must_use]
    pub fn continue_trace(mut self, caller: TraceParent) -> Self {
        (self.trace, self.parent) = (Some(caller.child()), Some(caller.span_id));
        self
    }

    /// `request_id`; cut to [`TEXT_BYTES_MAX`] bytes, nothing when empty.
    #[must_use]
    pub fn request_id(mut self, id: &str) -> Self {
        self.request = Inline::new(id);
        self
    }

    /// `thread_id`, as the kernel numbers threads, and `thread_name`, if it has one (its first 32
    /// bytes), of the thread that enters it.
    #[must_use]
    pub fn thread(mut self) -> Self {
        self.thread = true;
        self
    }

    /// `process_id` of the process that enters it.
    #[must_use]
    pub fn process(mut self) -> Self {
        self.process = true;
        self
    }

    /// A field of its own, such as `user`; the value is cut to [`TEXT_BYTES_MAX`] bytes. The same
    /// name again replaces the value; after [`OWN_FIELDS_MAX`] names further ones are left out.
    #[must_use]
    pub fn field(mut self, name: impl Into<Name<'static>>, value: &str) -> Self {
        self.set_own(name.into(), Inline::new(value));
        self
    }

    fn set_own(&mut self, name: Name<'static>, value: Inline<TEXT_BYTES_MAX>) {
        let is_same = |own: &Option<(Name<'static>, _)>| {
            own.as_ref().is_some_and(|own| own.0.text() == name.text())
        };
        let same = self.own.iter().position(is_same);
        let place = same.or_else(|| self.own.iter().position(Option::is_none));
        if let Some(place) = place {
            self.own[place] = Some((name, value));
        }
    }

    /// The trace and the span of this program in it: the header `traceparent` of calls that this
    /// scope makes.
    pub fn traceparent(&self) -> Option<TraceParent> {
        self.trace
    }

    /// Its request id; empty when it has none.
    pub fn request(&self) -> &str {
        self.request.as_str()
    }

    /// `self`, and what `outer` has beside it.
    fn over(&self, outer: &Self) -> Self {
        let mut both = *self;
        if self.trace.is_none() {
            (both.trace, both.parent) = (outer.trace, outer.parent);
        }
        if self.request.is_empty() {
            both.request = outer.request;
        }
        both.thread |= outer.thread;
        both.process |= outer.process;
        both.own = outer.own;
        for (name, value) in self.own.iter().flatten() {
            both.set_own(*name, *value);
        }
        if self.operation == 0 {
            both.operation = outer.operation;
        }
        both
    }

    /// Whether records have something of it.
    fn has_fields(&self) -> bool {
        let Self {
            thread, process, ..
        } = *self;
        let ids = self.trace.is_some() || !self.request.is_empty();
        ids || thread || process || self.own.iter().any(Option::is_some)
    }

    /// Whether a value of it was cut.
    fn is_cut(&self) -> bool {
        self.request.is_cut() || self.own.iter().flatten().any(|(_, value)| value.is_cut())
    }

    /// The same, for operations that belong to this one.
    pub(crate) fn with_operation(mut self, operation: u64) -> Self {
        self.operation = operation;
        self
    }

    /// Puts the context in force on the calling thread until the guard is dropped. What it does not
    /// set stays as it was outside. Not for signal handlers.
    pub fn enter(&self) -> ContextGuard {
        scope::enter(self)
    }

    /// The future in this context: in force while it is polled, and while it is dropped, on
    /// whatever thread that is.
    pub fn in_task<F: Future>(self, future: F) -> InContext<F> {
        InContext::new(&self, future)
    }
}
