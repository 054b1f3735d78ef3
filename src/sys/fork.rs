//! Which process this is: a forked child has a copy of everything that its parent knew, and must
//! not take it for its own.
//!
//! Process ids do not answer that (a new pid namespace begins at 1 again, and ids are reused), so a
//! page that the kernel wipes in a child does. Nothing here locks: a child may be forked while
//! other threads of its parent are anywhere.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::map::Region;
use crate::record::StaticSlot;

/// Holds the generation of the process that wrote it; reads 0 in a forked child.
struct Mark(Option<Region>);

static MARK: StaticSlot<Mark> = StaticSlot::new();
/// The highest generation of this process and its ancestors.
static LAST: AtomicU64 = AtomicU64::new(0);

/// A number that no ancestor of this process has; the same at every call of one process.
pub(crate) fn generation() -> u64 {
    // Threads that race make two pages, of which one stays unused.
    let mark = MARK
        .get()
        .unwrap_or_else(|| MARK.set(Box::leak(Box::new(Mark::new()))));
    let Some(region) = &mark.0 else {
        // No memory, or a kernel that cannot wipe, on which no session starts either.
        return u64::from(std::process::id());
    };
    let own = region.atomic_u64(0);
    // Relaxed, all of them: the exchange decides, and no data hangs on the number.
    match own.load(Relaxed) {
        0 => {
            let next = LAST.fetch_add(1, Relaxed) + 1;
            own.compare_exchange(0, next, Relaxed, Relaxed)
                .map_or_else(|first| first, |_| next)
        }
        generation => generation,
    }
}

impl Mark {
    fn new() -> Self {
        let region = Region::anonymous(size_of::<u64>()).ok();
        Self(region.filter(|region| region.wipe_on_fork().is_ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_of_a_process_sees_one_generation() {
        let first = generation();
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(generation)).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap(), first);
        }
        assert!(first > 0);
    }
}
