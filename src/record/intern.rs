//! Process-wide tables that hand out small ids for things that live as long as the process.
//!
//! Lock-free and without allocation, because a producer may meet a schema or symbol for the first
//! time in the middle of a push. Ids are the same for every session of the process; each session
//! writes the ones it uses into its own registry.
#![expect(
    unsafe_code,
    reason = "a slot turns a stored pointer back into the &'static it was"
)]

use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// One write-once cell that holds a `&'static T`.
pub(crate) struct StaticSlot<T: 'static> {
    /// Null, or a pointer made from a `&'static T`; never changes once it is not null.
    pointer: AtomicPtr<T>,
    /// The slot hands out `&'static T`, so it may be shared only when those may.
    owns: PhantomData<&'static T>,
}

impl<T: Sync> StaticSlot<T> {
    pub(crate) const fn new() -> Self {
        Self {
            pointer: AtomicPtr::new(ptr::null_mut()),
            owns: PhantomData,
        }
    }

    /// The value, if one was set.
    #[inline]
    pub(crate) fn get(&self) -> Option<&'static T> {
        // Acquire: pairs with the exchange in `set`; publishes what the value points to.
        let pointer = self.pointer.load(Acquire);
        // SAFETY:
        // - null or made from a `&'static T` in `set`, the only store: valid for ever.
        // - the value is only shared, never mutated through this pointer.
        unsafe { pointer.as_ref() }
    }

    /// Sets the value if there is none yet; returns the value that the slot holds now.
    pub(crate) fn set(&self, value: &'static T) -> &'static T {
        let new = ptr::from_ref(value).cast_mut();
        // Release: pairs with the Acquire in `get`, by which the loser reads too.
        match self
            .pointer
            .compare_exchange(ptr::null_mut(), new, Release, Relaxed)
        {
            Ok(_) => value,
            Err(_) => self.get().unwrap_or(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_value_stays() {
        static SLOT: StaticSlot<u32> = StaticSlot::new();
        static ONE: u32 = 1;
        static TWO: u32 = 2;
        assert_eq!(SLOT.get(), None);
        assert_eq!(SLOT.set(&ONE), &1);
        assert_eq!(SLOT.set(&TWO), &1);
        assert_eq!(SLOT.get(), Some(&1));
    }

    /// Miri and `ThreadSanitizer` notice a reader that does not see what the writer made.
    #[test]
    fn whoever_finds_the_value_sees_it_whole() {
        for _ in 0..8 {
            let slot = StaticSlot::new();
            let set = |value: [u64; 2]| slot.set(Box::leak(Box::new(value)));
            std::thread::scope(|scope| {
                let setters = [[1; 2], [2; 2]].map(|value| scope.spawn(move || *set(value)));
                let got = loop {
                    if let Some(value) = slot.get() {
                        break *value;
                    }
                    std::thread::yield_now();
                };
                for setter in setters {
                    assert_eq!(setter.join().unwrap(), got);
                }
            });
        }
    }
}
