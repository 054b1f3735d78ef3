//! Which ring the calling thread has in which session.
//!
//! The fast half is a table without a destructor, so that a push reads it without a check. The
//! slow half owns the rings and gives them up when the thread ends. A push in a thread-local
//! destructor that runs after that takes a ring for that one record.
#![expect(unsafe_code, reason = "dereferences the ring that the table remembers")]

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Weak};

use crate::core::Core;
use crate::record::cut_text;
use crate::ring::RingSlot;
use crate::segment::entry::Entry;

/// Sessions whose rings a thread finds without a search; the number of the session chooses.
const FAST_ENTRIES: usize = 4;
/// Sessions in which a thread can own a ring at one time. In further ones it takes a ring for
/// each record.
const OWNED_MAX: usize = 16;

struct Fast {
    /// Number of the session; 0 = none.
    uid: Cell<u64>,
    slot: Cell<*const RingSlot>,
}

impl Fast {
    const fn empty() -> Self {
        Self {
            uid: Cell::new(0),
            slot: Cell::new(ptr::null()),
        }
    }
}

thread_local! {
    static FAST: [Fast; FAST_ENTRIES] = const { [const { Fast::empty() }; FAST_ENTRIES] };
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
        FAST.with(|fast| fast.iter().for_each(|entry| entry.uid.set(0)));
        for ring in self.rings.get_mut().iter_mut().filter_map(Option::take) {
            if let Some(core) = ring.core.upgrade() {
                core.storage.slot(ring.index).ring().give_up();
            }
        }
    }
}

/// The ring that the calling thread owns in this session, if the table remembers it.
#[inline(always)]
pub(crate) fn fast_slot(core: &Core) -> Option<&RingSlot> {
    FAST.with(|fast| {
        let entry = &fast[(core.uid % FAST_ENTRIES as u64) as usize];
        if entry.uid.get() == core.uid {
            // SAFETY: `remember` stored a slot of the session with this number, which is never
            // reused; `core` is that session, and its slots live as long as it does.
            Some(unsafe { &*entry.slot.get() })
        } else {
            None
        }
    })
}

/// Calls `push` with a ring of the calling thread; `None` when there is no ring left. Takes a
/// ring if the thread has none.
#[cold]
pub(crate) fn with_slot<T>(core: &Arc<Core>, push: impl FnOnce(&RingSlot) -> T) -> Option<T> {
    if let Some(slot) = owned_slot(core) {
        remember(core, slot);
        return Some(push(slot));
    }
    let (index, ring_id) = core.storage.take_ring()?;
    announce(core, ring_id);
    let slot = core.storage.slot(index);
    // The ring is new to a writer that dozes.
    core.wake.wake_if_parked();
    if own(core, index) {
        remember(core, slot);
        Some(push(slot))
    } else {
        let result = push(slot);
        slot.ring().give_up();
        Some(result)
    }
}

fn remember(core: &Core, slot: &RingSlot) {
    FAST.with(|fast| {
        let entry = &fast[(core.uid % FAST_ENTRIES as u64) as usize];
        entry.uid.set(core.uid);
        entry.slot.set(ptr::from_ref(slot));
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
        let gone = |ring: &Option<OwnedRing>| {
            ring.as_ref()
                .is_none_or(|ring| ring.core.strong_count() == 0)
        };
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

/// Writes the thread behind a ring into the registry. Its kernel id is left out: asking for it
/// would be the only syscall of a first push.
fn announce(core: &Core, ring_id: u32) {
    let thread = std::thread::current();
    let entry = Entry::Producer(ring_id, 0, cut_text(thread.name().unwrap_or(""), 64));
    // No room: the records are complete without the name of their thread.
    if core.storage.registry.append(&entry).is_err() {
        core.note_registry_full();
    }
}
