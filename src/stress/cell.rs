//! The state of a rule: a few words that change as one, without a lock.
//!
//! There are [`SLOTS`] copies. The head says which one is the state, and how many changes there
//! were. Who changes the state takes a free copy, fills it from the state, changes it there, and
//! exchanges the head; who loses begins anew. A thread that is stopped keeps a copy and holds up
//! nobody. The number of changes is the order in which the state was updated.
//!
//! A copy can be taken by somebody else while it is read. What is read then is torn, but harmless:
//! the words are atomics, and what is computed from them fails at the exchange, because the head
//! has gone on before the copy was free. Two owners of a copy are ordered by the bit that says that
//! it is free: without that the writes of the first could come last (loom found it).

use std::sync::Arc;

use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU64, order};

/// Copies of a state: as many threads can be in the middle of a change.
#[cfg(not(loom))]
const SLOTS: usize = 32;
#[cfg(loom)]
const SLOTS: usize = 4;
/// Looks for a free copy, before a change is given up.
const LOOKS: u32 = 10_000;

/// The head: number of changes, a flag, index of the copy.
const ACTIVE: u64 = 1 << 7;
const INDEX: u64 = ACTIVE - 1;
const VERSION_SHIFT: u32 = 8;

/// How many of the cells that share it have an episode that goes on.
#[derive(Debug)]
pub(super) struct Episodes(AtomicU64);

impl Episodes {
    /// For cells without one.
    pub(super) fn none() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(0)))
    }

    /// Whether there may be one. Who knows of the change that began it sees it.
    #[inline(always)]
    pub(super) fn any(&self) -> bool {
        // Relaxed: a look that is a moment old is one that came a moment earlier.
        self.0.load(Relaxed) != 0
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cell {
    head: AtomicU64,
    /// Counts its episode.
    episodes: Arc<Episodes>,
    /// Bits of the copies that are free.
    free: AtomicU64,
    words: usize,
    slots: Box<[AtomicU64]>,
}

/// The words of a copy, which belong to the thread that changes them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'a>(&'a [AtomicU64]);

impl<'a> Words<'a> {
    /// The word at `index`; 0 beyond the end.
    pub(super) fn get(self, index: usize) -> u64 {
        self.0.get(index).map_or(0, |word| word.load(Relaxed))
    }

    pub(super) fn set(self, index: usize, value: u64) {
        if let Some(word) = self.0.get(index) {
            word.store(value, Relaxed);
        }
    }

    pub(super) fn add(self, index: usize, value: u64) {
        self.set(index, self.get(index).saturating_add(value));
    }

    /// The words from `start` on.
    pub(super) fn from(self, start: usize) -> Words<'a> {
        Words(self.0.get(start..).unwrap_or_default())
    }
}

/// What a change made of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Same,
    /// A new state, with an episode going on or without.
    New {
        /// Whether there is one.
        active: bool,
    },
}

impl Cell {
    /// A state of `words` zeros, whose episodes are counted with those of others.
    pub(super) fn new(words: usize, episodes: Arc<Episodes>) -> Self {
        Self {
            head: AtomicU64::new(0),
            episodes,
            // The first copy is the state.
            free: AtomicU64::new(((1 << SLOTS) - 1) & !1),
            words,
            slots: (0..words * SLOTS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Whether an episode is going on.
    #[inline(always)]
    pub(super) fn is_active(&self) -> bool {
        // Relaxed: a look that is a moment old is one that came a moment earlier.
        self.head.load(Relaxed) & ACTIVE != 0
    }

    /// Changes made so far, if no episode is going on.
    #[inline(always)]
    pub(super) fn quiet_version(&self) -> Option<u64> {
        let head = self.head.load(order::load_rule_head());
        (head & ACTIVE == 0).then_some(head >> VERSION_SHIFT)
    }

    /// Computes a change from the state, as often as others get in between, and returns the number
    /// of changes after it, with what `change` said at last. `None`: no copy was free.
    ///
    /// `change` may see torn words: it must end, whatever they are.
    pub(super) fn update<T>(
        &self,
        mut change: impl FnMut(Words<'_>) -> (Change, T),
    ) -> Option<(u64, T)> {
        let slot = Taken {
            cell: self,
            index: self.take()?,
        };
        loop {
            let old = self.head.load(order::load_rule_head());
            let (from, to) = (self.words_of(old & INDEX), self.words_of(slot.index));
            for index in 0..self.words {
                to.set(index, from.get(index));
            }
            let (changed, value) = change(to);
            let version = old >> VERSION_SHIFT;
            let (new, version) = match changed {
                // Exchanged all the same: it fails if the words that were read are not the state.
                Change::Same => (old, version),
                Change::New { active } => {
                    let flag = if active { ACTIVE } else { 0 };
                    let version = version + 1;
                    (version << VERSION_SHIFT | flag | slot.index, version)
                }
            };
            let begins = new & !old & ACTIVE != 0;
            if begins {
                // Relaxed, but before the exchange: who has seen that sees this.
                self.episodes.0.fetch_add(1, Relaxed);
            }
            // Release: the words of the copy come first. Acquire: whoever takes the old copy writes
            // to it after those who read it.
            let exchanged =
                self.head
                    .compare_exchange(old, new, order::exchange_rule_head(), Relaxed);
            let is_over = match exchanged {
                Ok(_) => old & !new & ACTIVE != 0,
                Err(_) => begins,
            };
            if is_over {
                self.episodes.0.fetch_sub(1, Relaxed);
            }
            if exchanged.is_err() {
                continue;
            }
            if new != old {
                // The copy is the state now; the old one is free.
                std::mem::forget(slot);
                self.give(old & INDEX);
            }
            return Some((version, value));
        }
    }

    fn words_of(&self, index: u64) -> Words<'_> {
        let start = index as usize * self.words;
        Words(
            self.slots
                .get(start..start + self.words)
                .unwrap_or_default(),
        )
    }

    /// Takes a free copy.
    fn take(&self) -> Option<u64> {
        for _ in 0..LOOKS {
            let free = self.free.load(Relaxed);
            if free == 0 {
                std::hint::spin_loop();
                continue;
            }
            let bit = free & free.wrapping_neg();
            // Acquire: what its last owner wrote to the copy comes before what we write.
            if self.free.fetch_and(!bit, order::take_rule_copy()) & bit != 0 {
                return Some(u64::from(bit.trailing_zeros()));
            }
        }
        None
    }

    fn give(&self, index: u64) {
        // Release: pairs with the Acquire in `take`.
        self.free.fetch_or(1 << index, order::give_rule_copy());
    }
}

/// A copy that was taken; given back by a panic of the change too.
struct Taken<'a> {
    cell: &'a Cell,
    index: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.cell.give(self.index);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_change_is_lost_and_none_is_seen_torn() {
        const THREADS: u64 = 4;
        const EACH: u64 = 2_000;
        let cell = Cell::new(8, Episodes::none());
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for number in 0..EACH {
                        let look = number % 2 == 0;
                        let (version, sum) = cell
                            .update(|words| {
                                let sum = (0..8).map(|index| words.get(index)).sum::<u64>();
                                if look {
                                    return (Change::Same, sum);
                                }
                                (0..8).for_each(|index| words.add(index, 1));
                                (Change::New { active: true }, sum + 8)
                            })
                            .unwrap();
                        assert_eq!(sum, version * 8, "torn");
                    }
                });
            }
        });
        assert_eq!(cell.head.load(Relaxed) >> VERSION_SHIFT, THREADS * EACH / 2);
        assert!(cell.is_active());
        assert_eq!(cell.free.load(Relaxed).count_ones() as usize, SLOTS - 1);
    }

    /// The other change comes between the copy and the exchange.
    #[test]
    fn a_change_that_others_get_ahead_of_begins_anew() {
        let cell = Cell::new(1, Episodes::none());
        let add = |words: Words<'_>| {
            words.add(0, 1);
            (Change::New { active: false }, words.get(0))
        };
        let mut runs = 0;
        let changed = cell.update(|words| {
            runs += 1;
            if runs == 1 {
                assert_eq!(cell.update(add), Some((1, 1)));
            }
            add(words)
        });
        assert_eq!((changed, runs), (Some((2, 2)), 2));
        // A look is as much anew as a change.
        let mut seen = Vec::new();
        let looked = cell.update(|words| {
            seen.push(words.get(0));
            if seen.len() == 1 {
                assert_eq!(cell.update(add), Some((3, 3)));
            }
            (Change::Same, ())
        });
        assert_eq!((looked, seen), (Some((3, ())), vec![2, 3]));
        assert_eq!(cell.free.load(Relaxed).count_ones() as usize, SLOTS - 1);
    }

    /// Two cells, and a begin and an end that another change gets ahead of.
    #[test]
    fn episodes_that_go_on_are_counted() {
        let episodes = Episodes::none();
        let cells = [(); 2].map(|()| Cell::new(1, Arc::clone(&episodes)));
        let to = |active| move |_: Words<'_>| (Change::New { active }, ());
        let count = || episodes.0.load(Relaxed);
        for (active, after) in [(true, [1, 2]), (true, [2, 2]), (false, [1, 0])] {
            let counts = cells.each_ref().map(|cell| {
                let mut first = true;
                cell.update(|words| {
                    if std::mem::take(&mut first) {
                        cell.update(to(active)).unwrap();
                    }
                    to(active)(words)
                });
                assert_eq!(cell.is_active(), active);
                count()
            });
            assert_eq!(counts, after);
            assert_eq!(episodes.any(), active);
        }
    }

    #[test]
    fn without_a_free_copy_nothing_is_changed() {
        let cell = Cell::new(1, Episodes::none());
        let taken: Vec<_> = (1..SLOTS).map(|_| cell.take().unwrap()).collect();
        assert_eq!(cell.update(|_| (Change::Same, ())), None);
        cell.give(taken[0]);
        assert_eq!(cell.update(|_| (Change::Same, ())), Some((0, ())));
    }
}

#[cfg(all(test, loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;
    use crate::ring::models::check;

    /// Two threads change two words each, a third one looks: no change is lost, none is torn.
    #[test]
    fn loom_rule_state() {
        let weaker = [
            "exchange_rule_head",
            "load_rule_head",
            "give_rule_copy",
            "take_rule_copy",
        ];
        check(50, &weaker, || {
            let cell = Arc::new(Cell::new(2, Episodes::none()));
            let change = |look: bool| {
                let cell = Arc::clone(&cell);
                thread::spawn(move || {
                    let seen = cell.update(|words| {
                        let both = (words.get(0), words.get(1));
                        if look {
                            return (Change::Same, both);
                        }
                        words.add(0, 1);
                        words.add(1, 1);
                        (Change::New { active: false }, both)
                    });
                    let (_, (a, b)) = seen.expect("there are as many copies as threads");
                    assert_eq!(a, b, "torn");
                })
            };
            let threads = [change(false), change(false), change(true)];
            for thread in threads {
                thread.join().unwrap();
            }
            let (version, both) = cell
                .update(|words| (Change::Same, (words.get(0), words.get(1))))
                .expect("all copies are free");
            assert_eq!((version, both), (2, (2, 2)), "a change is lost");
        });
    }

    /// Two threads begin an episode, and one ends it if it `ends`, while a third one looks: who
    /// sees one that does not end sees it counted, and afterwards the count is right.
    fn episodes(ends: bool) {
        let cell = Arc::new(Cell::new(1, Episodes::none()));
        let set = |active: bool| move |_: Words<'_>| (Change::New { active }, ());
        let begin = |ends: bool| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || {
                cell.update(set(true)).expect("a copy is free");
                if ends {
                    cell.update(set(false)).expect("a copy is free");
                }
            })
        };
        let looking = Arc::clone(&cell);
        let look = thread::spawn(move || {
            if looking.quiet_version().is_none() {
                assert!(ends || looking.episodes.any(), "it is not counted");
            }
        });
        for thread in [begin(ends), begin(false), look] {
            thread.join().unwrap();
        }
        assert_eq!(cell.episodes.any(), cell.is_active());
    }

    #[test]
    fn loom_rule_episodes_begin() {
        check(50, &[], || episodes(false));
    }

    #[test]
    fn loom_rule_episodes_end() {
        check(50, &[], || episodes(true));
    }
}
