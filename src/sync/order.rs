//! The memory orders of the protocols, by name, so that a model can weaken one and must fail.

use crate::sync::Ordering;

macro_rules! orders {
    ($($name:ident $order:ident),* $(,)?) => {$(
        #[cfg(not(all(test, loom)))]
        #[inline(always)]
        pub(crate) const fn $name() -> Ordering {
            Ordering::$order
        }

        #[cfg(all(test, loom))]
        pub(crate) fn $name() -> Ordering {
            if crate::sync::weakened(stringify!($name)) {
                Ordering::Relaxed
            } else {
                Ordering::$order
            }
        }
    )*};
}

orders! {
    store_write_pos Release, load_write_pos Acquire,
    store_read_pos Release, load_read_pos Acquire,
    store_idle Release, load_busy Acquire,
    store_entry_crc Release, load_entry_crc Acquire,
    store_state Release, load_state Acquire,
    store_head Release, load_head Acquire, load_moved_head Acquire,
    store_spill_commit Release,
    store_tail Release, load_tail Acquire, load_moved_tail Acquire,
    store_outside Release, load_inside Acquire,
    exchange_rule_head AcqRel, load_rule_head Acquire,
    give_rule_copy Release, take_rule_copy Acquire,
}
