//! Which ring the calling thread has in which session.
//!
//! The fast half is a table without a destructor, so that a push reads it without a check. The
//! slow half owns the rings and gives them up when the thread ends. A push in a thread-local
//! destructor that runs after that takes a ring for that one record.
#![expect(unsafe_code, reason = "dereferences the ring that the table remembers")]

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering::SeqCst, compiler_fence};
use std::sync::{Arc, Weak};

use crate::core::{Core, phase};
use crate::ring::RingSlot;

/// Sessions whose rings a thread finds without a search; the number of the session chooses.
const FAST_ENTRIES: usize = 4;
/// Sessions in which a thread can own a ring at one time. In further ones it takes a ring for
/// each record.
const OWNED_MAX: usize = 16;

/// The table: two columns, so that the number of an entry needs no arithmetic.
struct Fast {
    /// Numbers of sessions; 0 = none.
    uids: [Cell<u64>; FAST_ENTRIES],
    /// Their rings.
    slots: [Cell<NonNull<RingSlot>>; FAST_ENTRIES],
    /// The table is hidden: every push takes the slow path.
    hidden: Cell<bool>,
    /// What `uids` was before that.
    kept: [Cell<u64>; FAST_ENTRIES],
}

thread_local! {
    static FAST: Fast = const { Fast {
        uids: [const { Cell::new(0) }; FAST_ENTRIES],
        slots: [const { Cell::new(NonNull::dangling()) }; FAST_ENTRIES],
        hidden: const { Cell::new(false) },
        kept: [const { Cell::new(0) }; FAST_ENTRIES],
    } };
    static OWNED: Owned = const { Owned { rings: RefCell::new([const { None }; OWNED_MAX]) } };
}

struct OwnedRing {
    uid: u64,
    core: Weak<Core>,
    index: u32,
}

/// Rings of this thread.
struct Owned {
    rings: RefCell<[Option<OwnedRing>; OWNED_MAX]>,
}

impl Drop for Owned {
    fn drop(&mut self) {
        FAST.with(|fast| {
            for uid in fast.uids.iter().chain(&fast.kept) {
                uid.set(0);
            }
        });
        for ring in self.rings.get_mut().iter_mut().filter_map(Option::take) {
            // In a forked child the ring belongs to the thread of the parent.
            if let Some(core) = ring.core.upgrade().filter(|core| !core.gates.is_forked()) {
                core.storage.slot(ring.index).ring().give_up();
            }
        }
    }
}

/// A session as handles reach it: with what finds the ring of the calling thread beside the
/// pointer, so that a push need not follow it.
#[derive(Clone)]
pub(crate) struct Link {
    /// Number of the session; [`NO_SESSION`] exactly where `core` is `None`.
    uid: u64,
    /// Its entry in the table: below [`FAST_ENTRIES`].
    entry: usize,
    core: Option<Arc<Core>>,
}

/// A number that no session has, and no entry of the table.
const NO_SESSION: u64 = u64::MAX;

impl Link {
    /// A link to no session.
    pub(crate) const fn none() -> Self {
        Self {
            uid: NO_SESSION,
            entry: 0,
            core: None,
        }
    }

    pub(crate) fn new(core: Arc<Core>) -> Self {
        assert_ne!(core.uid, NO_SESSION);
        Self {
            uid: core.uid,
            entry: entry_of(core.uid),
            core: Some(core),
        }
    }

    pub(crate) fn core(&self) -> Option<&Arc<Core>> {
        self.core.as_ref()
    }

    /// The session, and the ring that the calling thread owns in it, if the table remembers one.
    #[inline(always)]
    pub(crate) fn fast(&self) -> Option<(&Core, &RingSlot)> {
        FAST.with(|fast| {
            // SAFETY: below `FAST_ENTRIES` by the invariant of the field.
            let uid = unsafe { fast.uids.get_unchecked(self.entry) };
            if uid.get() != self.uid {
                return None;
            }
            // SAFETY: as above.
            let slot = unsafe { fast.slots.get_unchecked(self.entry) };
            // SAFETY: `remember` stored a slot of the session with this number, which is never
            // reused; `self` keeps that session, and its slots live as long as it does.
            let slot = unsafe { slot.get().as_ref() };
            // SAFETY: the table has numbers of sessions and 0, so `uid` is not `NO_SESSION`.
            let core = unsafe { self.core.as_ref().unwrap_unchecked() };
            Some((&**core, slot))
        })
    }
}

/// The entry of a session in the table.
const fn entry_of(uid: u64) -> usize {
    (uid % FAST_ENTRIES as u64) as usize
}

/// The ring that the calling thread owns in this session, if the table remembers it.
pub(crate) fn fast_slot(core: &Core) -> Option<&RingSlot> {
    let entry = entry_of(core.uid);
    let slot = FAST.with(|fast| {
        let is_known = fast.uids[entry].get() == core.uid;
        is_known.then(|| fast.slots[entry].get())
    })?;
    // SAFETY: `remember` stored a slot of the session with this number, which is never reused;
    // `core` is that session, and its slots live as long as it does.
    Some(unsafe { slot.as_ref() })
}

/// Gives the ring up after the push, by a panic too.
struct Once<'a>(&'a RingSlot);
impl Drop for Once<'_> {
    fn drop(&mut self) {
        self.0.ring().give_up();
    }
}

/// Calls `push` with a ring of the calling thread; `None` when there is no ring left. Takes a
/// ring if the thread has none.
#[cold]
pub(crate) fn with_slot<T>(core: &Arc<Core>, push: impl FnOnce(&RingSlot) -> T) -> Option<T> {
    if let Some(slot) = owned_slot(core) {
        remember(core, slot);
        return Some(push(slot));
    }
    let index = core.storage.take_ring()?;
    let slot = core.storage.slot(index);
    // The ring is new to a writer that dozes.
    core.wake.wake_if_dozing();
    if own(core, index) {
        remember(core, slot);
        return Some(push(slot));
    }
    let _once = Once(slot);
    Some(push(slot))
}

/// Makes the pushes of the calling thread leave the quick path, or take it again: they have
/// something to add. So a push that has nothing to add need not look whether it has.
pub(crate) fn hide(hidden: bool) {
    FAST.with(|fast| {
        if fast.hidden.get() == hidden {
            return;
        }
        let (from, to) = if hidden {
            // Before the numbers go: a signal handler that pushes now must not bring one back.
            fast.hidden.set(true);
            (&fast.uids, &fast.kept)
        } else {
            (&fast.kept, &fast.uids)
        };
        compiler_fence(SeqCst);
        for (from, to) in from.iter().zip(to) {
            to.set(from.replace(0));
        }
        compiler_fence(SeqCst);
        fast.hidden.set(hidden);
    });
}

fn remember(core: &Core, slot: &RingSlot) {
    FAST.with(|fast| {
        if fast.hidden.get() {
            return;
        }
        let entry = entry_of(core.uid);
        // A signal handler may push between any two of these: it must find the pair whole or not.
        fast.uids[entry].set(0);
        compiler_fence(SeqCst);
        fast.slots[entry].set(NonNull::from(slot));
        compiler_fence(SeqCst);
        fast.uids[entry].set(core.uid);
    });
}

fn owned_slot(core: &Core) -> Option<&RingSlot> {
    let find = |owned: &Owned| {
        let rings = owned.rings.try_borrow().ok()?;
        rings
            .iter()
            .flatten()
            .find(|ring| ring.uid == core.uid)
            .map(|ring| ring.index)
    };
    // An error means that the thread is ending and has given its rings up.
    let index = OWNED.try_with(find).ok().flatten()?;
    Some(core.storage.slot(index))
}

/// Remembers that the thread owns the ring; false when it cannot.
fn own(core: &Arc<Core>, index: u32) -> bool {
    let put = |owned: &Owned| {
        let Ok(mut rings) = owned.rings.try_borrow_mut() else {
            return false;
        };
        let is_over = |core: &Weak<Core>| {
            core.upgrade()
                .is_none_or(|core| core.gates.is_forked() || core.phase() != phase::RECORDING)
        };
        let gone = |ring: &Option<OwnedRing>| ring.as_ref().is_none_or(|ring| is_over(&ring.core));
        let Some(free) = rings.iter_mut().find(|ring| gone(ring)) else {
            return false;
        };
        *free = Some(OwnedRing {
            uid: core.uid,
            core: Arc::downgrade(core),
            index,
        });
        true
    };
    OWNED.try_with(put).unwrap_or(false)
}
