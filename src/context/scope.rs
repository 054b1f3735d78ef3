//! The context that is in force on a thread, and the operations that run on it.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};

use super::{Context, Inline};
use crate::local;
use crate::record::{Extra, LEAD_MAX, Value};
use crate::symbol;
use crate::sys::fork;

/// Longest name of a thread that is recorded, in bytes.
const THREAD_NAME_BYTES_MAX: usize = 32;
/// How deep operations nest; those that are deeper belong to the deepest of these.
const OPERATIONS_MAX: usize = 16;
/// How deep guards nest of which it is known whether they are still in force.
const GUARDS_MAX: usize = 32;

/// A context with everything that its fields need, so that a record has only to copy it.
#[derive(Clone, Copy)]
pub(crate) struct Active {
    context: Context,
    trace_id: [u8; 32],
    span_id: [u8; 16],
    parent_id: [u8; 16],
    thread: Thread,
    process_id: u32,
}

/// What a thread is called.
#[derive(Clone, Copy)]
struct Thread {
    id: u64,
    name: Inline<THREAD_NAME_BYTES_MAX>,
}

impl Active {
    const NONE: Self = Self {
        context: Context::new(),
        trace_id: [b'0'; 32],
        span_id: [b'0'; 16],
        parent_id: [b'0'; 16],
        thread: Thread {
            id: 0,
            name: Inline::EMPTY,
        },
        process_id: 0,
    };

    /// `context` on the calling thread.
    fn new(context: &Context) -> Self {
        let mut active = Self {
            context: *context,
            ..Self::NONE
        };
        if let Some(trace) = context.trace {
            active.trace_id = trace.trace_id.digits();
            active.span_id = trace.span_id.digits();
        }
        if let Some(parent) = context.parent {
            active.parent_id = parent.digits();
        }
        if context.thread || context.process {
            let own = OWN.with(Own::get);
            (active.thread, active.process_id) = (own.thread, own.process_id);
        }
        active
    }

    /// The same for a record that tells the request id itself.
    pub(crate) fn without_request(mut self) -> Self {
        self.context.request = Inline::EMPTY;
        self
    }

    /// Whether a value of the context was cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.context.is_cut()
    }

    /// `first` and the fields of the context, in `room`.
    pub(crate) fn lead<'a>(
        &'a self,
        first: &[Extra<'a>],
        room: &'a mut [Extra<'a>; LEAD_MAX],
    ) -> &'a [Extra<'a>] {
        let Self { context, .. } = self;
        let mut count = 0;
        let mut put = |extra: Extra<'a>| {
            if let Some(place) = room.get_mut(count) {
                *place = extra;
                count += 1;
            }
        };
        for extra in first {
            put(*extra);
        }
        if context.trace.is_some() {
            put(Extra::new(symbol!("trace_id"), ascii(&self.trace_id)));
            put(Extra::new(symbol!("span_id"), ascii(&self.span_id)));
        }
        if context.parent.is_some() {
            put(Extra::new(
                symbol!("parent_span_id"),
                ascii(&self.parent_id),
            ));
        }
        if !context.request.is_empty() {
            put(Extra::new(symbol!("request_id"), context.request.as_str()));
        }
        if context.thread {
            put(Extra::new(symbol!("thread_id"), self.thread.id));
            if !self.thread.name.is_empty() {
                put(Extra::new(
                    symbol!("thread_name"),
                    self.thread.name.as_str(),
                ));
            }
        }
        if context.process {
            put(Extra::new(symbol!("process_id"), self.process_id));
        }
        for (name, value) in context.own.iter().flatten() {
            put(Extra::new(*name, value.as_str()));
        }
        &room[..count]
    }
}

fn ascii(digits: &[u8]) -> Value<'_> {
    Value::Text(std::str::from_utf8(digits).unwrap_or_default())
}

/// Ids of the calling thread: asked for once per process.
struct Own {
    /// [`fork::generation`] of the process in which they were asked for; 0 = not yet.
    asked: Cell<u64>,
    told: Cell<Told>,
}

#[derive(Clone, Copy)]
struct Told {
    thread: Thread,
    process_id: u32,
}

impl Own {
    fn get(&self) -> Told {
        let process = fork::generation();
        if self.asked.get() != process {
            let thread = std::thread::current();
            self.told.set(Told {
                thread: Thread {
                    id: u64::from(
                        rustix::thread::gettid()
                            .as_raw_nonzero()
                            .get()
                            .unsigned_abs(),
                    ),
                    name: Inline::new(thread.name().unwrap_or_default()),
                },
                process_id: std::process::id(),
            });
            self.asked.set(process);
        }
        self.told.get()
    }
}

/// What is in force on this thread.
struct State {
    /// Whether `active` is. False while that is being changed, for signal handlers.
    is_active: Cell<bool>,
    active: Cell<Active>,
    /// Guards that have not been dropped.
    depth: Cell<usize>,
    /// How many there were.
    made: Cell<u64>,
    /// The number of the guard of each depth, and the operation that came with it; 0 = none.
    guards: [Cell<(u64, u64)>; GUARDS_MAX],
    /// Operations that run, the innermost last.
    operations: [Cell<u64>; OPERATIONS_MAX],
    running: Cell<usize>,
}

// Without destructors: nothing is registered with the C library, nothing is allocated.
thread_local! {
    static STATE: State = const { State {
        is_active: Cell::new(false),
        active: Cell::new(Active::NONE),
        depth: Cell::new(0),
        made: Cell::new(0),
        guards: [const { Cell::new((0, 0)) }; GUARDS_MAX],
        operations: [const { Cell::new(0) }; OPERATIONS_MAX],
        running: Cell::new(0),
    } };
    static OWN: Own = const { Own {
        asked: Cell::new(0),
        told: Cell::new(Told { thread: Active::NONE.thread, process_id: 0 }),
    } };
}

/// Whether a context is in force on this thread.
pub(crate) fn is_active() -> bool {
    STATE.with(|state| state.is_active.get())
}

/// The context that is in force, if [`is_active`].
pub(crate) fn active() -> Active {
    STATE.with(|state| state.active.get())
}

pub(super) fn current() -> Context {
    STATE.with(|state| {
        let context = if state.is_active.get() {
            state.active.get().context
        } else {
            Context::new()
        };
        context.with_operation(state.innermost())
    })
}

impl State {
    fn set(&self, active: Option<&Active>) {
        self.is_active.set(false);
        compiler_fence(SeqCst);
        if let Some(active) = active {
            self.active.set(*active);
            compiler_fence(SeqCst);
            self.is_active.set(true);
        }
        local::hide(active.is_some());
    }

    /// A guard that is made, with an operation: its depth and its number.
    fn push_guard(&self, operation: u64) -> (usize, u64) {
        let (depth, number) = (self.depth.get() + 1, self.made.get() + 1);
        self.depth.set(depth);
        self.made.set(number);
        if let Some(place) = self.guards.get(depth - 1) {
            place.set((number, operation));
        }
        (depth, number)
    }

    /// Whether no outer guard was dropped before this one. One of the same depth that was made
    /// since has another number.
    fn is_in_force(&self, guard: &ContextGuard) -> bool {
        let same = self.guards.get(guard.depth - 1);
        guard.depth <= self.depth.get() && same.is_none_or(|same| same.get().0 == guard.number)
    }

    /// The operations that came with this guard and with those that were made after it end.
    fn end_guards(&self, guard: &ContextGuard) {
        let inner = guard.depth - 1..self.depth.get().min(GUARDS_MAX);
        for place in self.guards.get(inner).unwrap_or_default() {
            self.remove_any(place.get().1);
        }
        self.depth.set(guard.depth - 1);
    }

    fn remove_any(&self, operation: u64) {
        if operation > 0 {
            self.remove(operation);
        }
    }

    /// 0 when no operation runs here.
    fn innermost(&self) -> u64 {
        let last = self.running.get().checked_sub(1);
        let operation = last.and_then(|last| self.operations.get(last));
        operation.map_or(0, Cell::get)
    }

    /// An operation that runs on this thread. False when there are too many.
    fn push(&self, id: u64) -> bool {
        let Some(place) = self.operations.get(self.running.get()) else {
            return false;
        };
        place.set(id);
        self.running.set(self.running.get() + 1);
        true
    }

    /// The operation does not run here any more; others may have begun after it.
    fn remove(&self, id: u64) {
        let running = &self.operations[..self.running.get().min(OPERATIONS_MAX)];
        let Some(at) = running.iter().rposition(|place| place.get() == id) else {
            return;
        };
        for pair in running[at..].windows(2) {
            pair[0].set(pair[1].get());
        }
        self.running.set(running.len() - 1);
    }
}

/// An operation begins on this thread: the one that it belongs to, 0 = none.
pub(crate) fn begin_operation(id: u64) -> u64 {
    STATE.with(|state| {
        let parent = state.innermost();
        state.push(id);
        parent
    })
}

/// The operation that runs on this thread; 0 = none.
#[cfg(feature = "tracing")]
pub(crate) fn innermost_operation() -> u64 {
    STATE.with(State::innermost)
}

/// An operation ends, or goes elsewhere.
pub(crate) fn end_operation(id: u64) {
    STATE.with(|state| state.remove(id));
}

/// Takes the context out of force when it is dropped, and puts the one back that was before.
/// Guards are dropped on the thread that made them, the last one first; dropping an outer one ends
/// all that were made after it.
#[derive(Debug)]
#[must_use = "the context is in force until the guard is dropped"]
pub struct ContextGuard {
    before: Before,
    depth: usize,
    /// Which one it is of all that the thread made.
    number: u64,
    /// The operation that came with the context.
    operation: u64,
    /// Stays on its thread.
    local: PhantomData<*const ()>,
}

/// What was in force before.
struct Before(Option<Active>);

impl std::fmt::Debug for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "context" } else { "none" })
    }
}

pub(super) fn enter(context: &Context) -> ContextGuard {
    STATE.with(|state| {
        let before = state.is_active.get().then(|| state.active.get());
        let whole = match &before {
            Some(before) => context.over(&before.context),
            None => *context,
        };
        let active = whole.has_fields().then(|| Active::new(&whole));
        state.set(active.as_ref());
        let operation = if context.operation > 0 && state.push(context.operation) {
            context.operation
        } else {
            0
        };
        let (depth, number) = state.push_guard(operation);
        ContextGuard {
            before: Before(before),
            depth,
            number,
            operation,
            local: PhantomData,
        }
    })
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        STATE.with(|state| {
            if self.depth > GUARDS_MAX {
                state.remove_any(self.operation);
            }
            // Else an outer guard was dropped before, and has put back what was before that.
            if state.is_in_force(self) {
                state.end_guards(self);
                state.set(self.before.0.as_ref());
            }
        });
    }
}
