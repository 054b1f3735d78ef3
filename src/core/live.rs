//! Live files: what the writer tells the thread that appends lines while a session records, and
//! what others ask of that thread.
//!
//! The writer stores two numbers and, at most once per sleep of that thread, wakes it: it never
//! waits. The lines come from the segments, whose blocks carry checksums, so a number that is seen
//! before the block that it counts does no harm.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::Core;
use crate::sync::barrier;
use crate::wake::{Wake, is_engine};

/// Waits until what the calling thread has pushed is in a segment.
pub(crate) type Flush = Box<dyn Fn(&Core) + Send + Sync>;

/// How long a push waits for its line.
const LINE_LIMIT: Duration = Duration::from_secs(10);

/// Between the writer and the thread that appends lines.
#[derive(Default)]
pub(crate) struct LiveFeed {
    /// With `line_sync`: what comes before the wait for the line itself.
    flush: Option<Flush>,
    /// Blocks in the segments, seals among them: the sequence that the next one gets.
    blocks: AtomicU64,
    /// The counter when a pass of the writer began that has ended: what was committed before is in
    /// those blocks.
    drained: AtomicU64,
    wake: Wake,
    wishes: Mutex<Wishes>,
    answered: Condvar,
}

/// What is asked of the thread that appends lines.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wishes {
    /// Number of the last call that waits for its line.
    pub(crate) asked: u64,
    /// All calls up to this one are answered.
    answered: u64,
    /// The writer has ended: append what is left, and end.
    pub(crate) stop: bool,
    /// When to end all the same.
    pub(crate) deadline: Option<Instant>,
    /// Nobody answers any more.
    pub(crate) ended: bool,
}

impl Wishes {
    /// Whether a call waits.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked > self.answered
    }
}

// Not derived: `flush` has nothing to show.
impl std::fmt::Debug for LiveFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveFeed")
            .field("blocks", &self.blocks)
            .field("wishes", &self.wishes)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Whether a push returns after its line is in the file.
    pub(crate) fn is_line_sync(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.flush.is_some())
    }

    /// After a push: waits for its line, with `line_sync`. Threads of the engine, whose panics can
    /// be records, would wait for themselves.
    pub(crate) fn line_sync(&self) {
        if let Some(live) = &self.live
            && let Some(flush) = &live.flush
            && !is_engine()
        {
            flush(self);
            live.wait_for_lines(LINE_LIMIT);
        }
    }
}

impl LiveFeed {
    /// With `flush`, calls wait for their lines.
    pub(crate) fn new(flush: Option<Flush>) -> Self {
        Self {
            flush,
            ..Self::default()
        }
    }

    /// Writer: so many blocks are in the segments; `drained`: the counter when the pass began that
    /// has just ended.
    pub(crate) fn tell(&self, blocks: u64, drained: Option<u64>) {
        // Relaxed: the writer's own number.
        let is_new = self.blocks.load(Relaxed) != blocks;
        if is_new {
            self.blocks.store(blocks, Relaxed);
        }
        if let Some(drained) = drained {
            // Release: who sees it sees the number of blocks that goes with it.
            self.drained.store(drained, Release);
        }
        if is_new {
            self.wake.wake_if_dozing();
        }
    }

    /// The counter up to which everything that was committed is in the blocks, and their number.
    pub(crate) fn told(&self) -> (u64, u64) {
        // Acquire: pairs with the Release in `tell`.
        let drained = self.drained.load(Acquire);
        (drained, self.blocks.load(Relaxed))
    }

    /// Before it starts: who appends lines.
    pub(crate) fn register(&self, thread: Thread) {
        self.wake.register(thread);
    }

    /// Sleeps until there are other blocks than these or somebody asks for something.
    pub(crate) fn doze(&self, blocks: u64) {
        self.wake.set_dozing(true);
        // First announced, then looked: the writer that was not seen sees the announcement.
        barrier::heavy();
        let wishes = *self.wishes();
        if self.blocks.load(Relaxed) == blocks && !wishes.stop && !wishes.is_asked() {
            std::thread::park();
        }
        self.wake.set_dozing(false);
    }

    /// What is asked now.
    pub(crate) fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls up to this number have their lines, as far as that is possible.
    pub(crate) fn answer(&self, asked: u64) {
        self.wishes().answered = asked;
        self.answered.notify_all();
    }

    /// Nobody appends lines any more.
    pub(crate) fn end(&self) {
        self.wishes().ended = true;
        self.answered.notify_all();
    }

    /// Caller: waits until everything that is in the segments now has its lines, for `limit` at
    /// most.
    pub(crate) fn wait_for_lines(&self, limit: Duration) {
        let mut wishes = self.wishes();
        wishes.asked += 1;
        let number = wishes.asked;
        drop(wishes);
        self.wake.unpark();
        let waits = |wishes: &mut Wishes| wishes.answered < number && !wishes.ended;
        let waited = self
            .answered
            .wait_timeout_while(self.wishes(), limit, waits);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Closer: the writer has ended. `deadline`: when the lines are not waited for any longer.
    pub(crate) fn stop(&self, deadline: Instant) {
        let mut wishes = self.wishes();
        wishes.stop = true;
        wishes.deadline = Some(deadline);
        drop(wishes);
        self.wake.unpark();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn whoever_sees_a_pass_sees_its_blocks() {
        // miri shows any of the values that the orders allow.
        let rounds = if cfg!(miri) { 4 } else { 50 };
        for _ in 0..rounds {
            let feed = LiveFeed::default();
            std::thread::scope(|scope| {
                scope.spawn(|| (1..=20).for_each(|pass| feed.tell(pass, Some(pass))));
                let mut drained = 0;
                while drained < 20 {
                    let (pass, blocks) = feed.told();
                    assert!(blocks >= pass, "{blocks} blocks in pass {pass}");
                    drained = pass;
                    std::thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_doze_ends_with_a_block_a_call_or_the_stop() {
        let endings: [fn(&LiveFeed); 3] = [
            |feed| feed.tell(1, None),
            |feed| feed.wait_for_lines(Duration::ZERO),
            |feed| feed.stop(Instant::now()),
        ];
        for ending in endings {
            let feed = LiveFeed::default();
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    std::thread::park();
                    feed.doze(0);
                });
                feed.register(thread.thread().clone());
                thread.thread().unpark();
                ending(&feed);
            });
        }
    }

    #[test]
    fn a_call_waits_for_its_answer_and_for_no_longer_than_the_end() {
        let feed = LiveFeed::default();
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| {
                while !feed.wishes().is_asked() {
                    std::thread::yield_now();
                }
                let asked = feed.wishes().asked;
                feed.answer(asked);
            });
            feed.register(answering.thread().clone());
            feed.wait_for_lines(Duration::from_secs(60));
        });
        assert!(!feed.wishes().is_asked());
        feed.end();
        feed.wait_for_lines(Duration::from_secs(3600));
    }
}
