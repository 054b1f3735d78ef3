//! Operations that take time: a record when they begin, one when they end, tied together by an id.
//!
//! ```
//! use stormlog::record::Extra;
//!
//! # fn main() -> Result<(), stormlog::Error> {
//! # let temp = tempfile::tempdir().unwrap();
//! # let session = stormlog::Session::builder().dir(temp.path()).start()?;
//! let log = session.log();
//! let mut operation = log.provisioning().start("start_acestream");
//! let port = Ok::<u16, std::io::Error>(6878); // what takes the time
//! match port {
//!     Ok(port) => {
//!         operation.set_subject("4f6c0a");
//!         operation.success(&[Extra::new("host_http_port", port)]);
//!     }
//!     Err(error) => operation.fail(error, &[]),
//! }
//! # session.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! writes `start_acestream_begin`, and then one of
//!
//! | operation | when | `success` | `error` |
//! |---|---|---|---|
//! | `start_acestream_success` | [`Span::success`] | true | null |
//! | `start_acestream_failed` | [`Span::fail`] | false | the error, its first 512 bytes |
//! | `start_acestream_abandoned` | it is dropped without either | false | `dropped` |
//! | the same | a panic drops it | false | `panic` |
//!
//! An error or a subject that is cut makes the line one with `"truncated":true`.
//!
//! Each carries `operation_id`, a number that no other operation of the process has, and, if it
//! runs inside of another one, that one's as `parent_operation_id`. An operation without an end is
//! one that was running when the process died.
//!
//! One reading of the counter is both the time of the end and what its duration is reckoned from.
//! Where the category is sampled, begin and end are kept or left out together, with one weight. (A
//! ring that is full drops either alone, and the ledger counts it; so does a rate limit.) Recording
//! that is off when an operation begins costs a load, and its end is not recorded either. No
//! allocation, but for the first use of a name.
//!
//! An operation runs on the thread that began it, and what that thread begins meanwhile belongs to
//! it. [`Span::detach`] lets it go to other threads, or through an `async` task.

use std::fmt::{Display, Write};
use std::marker::PhantomData;
use std::time::Duration;

use crate::context::{self, Context, Inline};
use crate::producer::{Fate, Log};
use crate::record::catalog::orchestrator;
use crate::record::{Extra, Name, Record, Symbol};
use crate::sampling::KeyHash;
use crate::symbol;

/// Longest error that is recorded, in bytes.
const ERROR_BYTES_MAX: usize = 512;
/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 64;
/// Longest name of a record, in bytes: the name of the operation and what became of it.
const NAME_BYTES_MAX: usize = 128;

/// What a record of an operation tells.
#[derive(Clone, Copy, Debug)]
pub struct SpanEvent<'a> {
    /// Name of the operation, and `_begin`, `_success`, `_failed` or `_abandoned`.
    pub operation: Name<'a>,
    /// What it is about, if that is known.
    pub subject: Option<&'a str>,
    /// Time it took; none at its begin.
    pub duration: Option<Duration>,
    /// False when it failed or was abandoned; true at its begin.
    pub success: bool,
    /// Why it failed.
    pub error: Option<&'a str>,
}

/// The records of a kind of operations; implement it for a type of your own to use
/// [`Log::operations`].
pub trait SpanKind {
    /// Their type.
    type Record<'a>: Record;

    /// The record for this event.
    fn record(event: SpanEvent<'_>) -> Self::Record<'_>;
}

/// Operations of the category `provisioning`; their subject is the container.
#[derive(Debug)]
pub enum Provisioning {}

impl SpanKind for Provisioning {
    type Record<'a> = orchestrator::Provisioning<'a>;

    fn record(event: SpanEvent<'_>) -> Self::Record<'_> {
        orchestrator::Provisioning {
            operation: event.operation,
            container_id: event.subject,
            duration_ms: event.duration,
            success: event.success,
            error: event.error,
        }
    }
}

/// Operations of the category `performance`; they have no subject.
#[derive(Debug)]
pub enum Performance {}

impl SpanKind for Performance {
    type Record<'a> = orchestrator::TimedOperation<'a>;

    fn record(event: SpanEvent<'_>) -> Self::Record<'_> {
        orchestrator::TimedOperation {
            operation: event.operation,
            duration_ms: event.duration,
            threshold_exceeded: false,
            success: event.success,
            error: event.error,
            category: symbol!("performance"),
        }
    }
}

/// Begins operations of one kind.
#[derive(Debug)]
pub struct Operations<'l, K> {
    log: &'l Log,
    kind: PhantomData<fn() -> K>,
}

impl Log {
    /// Operations of the category `provisioning`.
    pub fn provisioning(&self) -> Operations<'_, Provisioning> {
        self.operations()
    }

    /// Operations of the category `performance`.
    pub fn performance(&self) -> Operations<'_, Performance> {
        self.operations()
    }

    /// Operations of any kind.
    pub fn operations<K: SpanKind>(&self) -> Operations<'_, K> {
        Operations {
            log: self,
            kind: PhantomData,
        }
    }
}

impl<'l, K: SpanKind> Operations<'l, K> {
    /// Begins an operation. Its name is the same for all of its kind; of a long one the first 100
    /// bytes are recorded.
    pub fn start(&self, name: &'static str) -> Span<'l, K> {
        self.start_with(name, &[])
    }

    /// The same, with fields for the record of its begin.
    pub fn start_with(&self, name: &'static str, fields: &[Extra<'_>]) -> Span<'l, K> {
        Span {
            log: self.log,
            running: Running::begin(self.log, name, fields),
            local: PhantomData,
        }
    }
}

/// An operation that runs on this thread; recorded as abandoned when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it records that the operation was abandoned"]
pub struct Span<'l, K: SpanKind> {
    log: &'l Log,
    /// `None`: ended, gone elsewhere, or nothing is recorded.
    running: Option<Running<K>>,
    /// Stays on its thread, whose other operations belong to it.
    local: PhantomData<*const ()>,
}

/// An operation that may go to other threads; recorded as abandoned when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it records that the operation was abandoned"]
pub struct DetachedSpan<K: SpanKind> {
    log: Log,
    running: Option<Running<K>>,
}

macro_rules! span {
    ($leave:expr) => {
        /// The number of the operation; 0 when nothing is recorded.
        pub fn id(&self) -> u64 {
            self.running.as_ref().map_or(0, |running| running.id)
        }

        /// What the operation is about, as far as it is known by now; its first 64 bytes.
        pub fn set_subject(&mut self, subject: &str) {
            if let Some(running) = &mut self.running {
                let mut text = Inline::EMPTY;
                running.subject_cut = !text.push(subject);
                running.subject = Some(text);
            }
        }

        /// Ends it: it worked. `fields` follow in the record.
        pub fn success(mut self, fields: &[Extra<'_>]) {
            self.end(End::Success, fields);
        }

        /// Ends it: it did not work.
        pub fn fail(mut self, error: impl Display, fields: &[Extra<'_>]) {
            if self.running.is_some() {
                let mut text = Inline::<ERROR_BYTES_MAX>::EMPTY;
                // It is full, or cannot be shown any further.
                let is_cut = write!(text, "{error}").is_err();
                self.end(End::Failed(text.as_str(), is_cut), fields);
            }
        }

        fn end(&mut self, end: End<'_>, fields: &[Extra<'_>]) {
            if let Some(running) = self.running.take() {
                $leave(running.id);
                running.end(&self.log, end, fields);
            }
        }
    };
}

impl<K: SpanKind> Span<'_, K> {
    span!(context::end_operation);

    /// The same operation, free to go to another thread. What this thread begins from now on does
    /// not belong to it.
    pub fn detach(mut self) -> DetachedSpan<K> {
        let running = self.running.take();
        if let Some(running) = &running {
            context::end_operation(running.id);
        }
        DetachedSpan {
            log: self.log.clone(),
            running,
        }
    }
}

impl<K: SpanKind> DetachedSpan<K> {
    span!(|_: u64| ());

    /// The context of the calling thread, in which operations belong to this one: for
    /// [`Context::in_task`] and [`Context::enter`].
    pub fn context(&self) -> Context {
        Context::current().with_operation(self.id())
    }
}

impl<K: SpanKind> Drop for Span<'_, K> {
    fn drop(&mut self) {
        self.end(End::Abandoned, &[]);
    }
}

impl<K: SpanKind> Drop for DetachedSpan<K> {
    fn drop(&mut self) {
        self.end(End::Abandoned, &[]);
    }
}

/// How an operation ends.
#[derive(Clone, Copy, Debug)]
enum End<'e> {
    Success,
    /// The error, and whether it was cut.
    Failed(&'e str, bool),
    Abandoned,
}

/// An operation whose begin was offered.
#[derive(Debug)]
struct Running<K> {
    name: &'static str,
    id: u64,
    /// The operation that it belongs to; 0 = none.
    parent: u64,
    /// Reading of the counter at its begin.
    begin: u64,
    key: Option<KeyHash>,
    fate: Fate,
    subject: Option<Inline<SUBJECT_BYTES_MAX>>,
    subject_cut: bool,
    kind: PhantomData<fn() -> K>,
}

impl<K: SpanKind> Running<K> {
    /// `None` when nothing is recorded.
    fn begin(log: &Log, name: &'static str, fields: &[Extra<'_>]) -> Option<Self> {
        let begin = log.ticks(&K::record(begin_event(Name::Text(""))))?;
        let id = context::next_operation();
        let mut running = Self {
            name,
            id,
            parent: context::begin_operation(id),
            begin,
            key: log.key_hash(&id.to_le_bytes()),
            fate: Fate::Off,
            subject: None,
            subject_cut: false,
            kind: PhantomData,
        };
        running.fate = named(name, "_begin", |operation| {
            let record = K::record(begin_event(operation));
            let (lead, count) = running.lead();
            log.push_begin(record, [&lead[..count], fields], running.key, begin)
        });
        if running.fate == Fate::Off {
            context::end_operation(id);
            return None;
        }
        Some(running)
    }

    fn end(self, log: &Log, end: End<'_>, fields: &[Extra<'_>]) {
        let Some(now) = log.ticks(&K::record(begin_event(Name::Text("")))) else {
            return;
        };
        let (suffix, error) = match end {
            End::Success => ("_success", None),
            End::Failed(text, _) => ("_failed", Some(text)),
            End::Abandoned if std::thread::panicking() => ("_abandoned", Some("panic")),
            End::Abandoned => ("_abandoned", Some("dropped")),
        };
        let is_cut = self.subject_cut || matches!(end, End::Failed(_, true));
        named(self.name, suffix, |operation| {
            let record = K::record(SpanEvent {
                operation,
                subject: self.subject.as_ref().map(Inline::as_str),
                duration: Some(log.between(self.begin, now)),
                success: error.is_none(),
                error,
            });
            let (lead, count) = self.lead();
            let fate = (self.fate, is_cut);
            log.push_end(record, [&lead[..count], fields], self.key, now, fate)
        });
    }

    /// The fields that tie the records together.
    fn lead(&self) -> ([Extra<'static>; 2], usize) {
        let lead = [
            Extra::new(symbol!("operation_id"), self.id),
            Extra::new(symbol!("parent_operation_id"), self.parent),
        ];
        (lead, if self.parent > 0 { 2 } else { 1 })
    }
}

/// A begin, about which nothing is known yet.
fn begin_event(operation: Name<'_>) -> SpanEvent<'_> {
    SpanEvent {
        operation,
        subject: None,
        duration: None,
        success: true,
        error: None,
    }
}

/// Calls `then` with the name of a record: a symbol, so that durations are counted by operation.
fn named<T>(name: &str, suffix: &str, then: impl FnOnce(Name<'_>) -> T) -> T {
    let mut text = Inline::<NAME_BYTES_MAX>::new(crate::record::cut_text(name, 100));
    text.push(suffix);
    match Symbol::intern(text.as_str()) {
        Some(symbol) => then(Name::Symbol(symbol)),
        None => then(Name::Text(text.as_str())),
    }
}
