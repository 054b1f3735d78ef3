//! The memory orders of the protocols, by name, so that a model can weaken one and must fail.

#[cfg(not(all(test, loom)))]
mod chosen {
    use crate::sync::Ordering;

    macro_rules! orders {
        ($($name:ident $order:ident),* $(,)?) => {$(
            #[inline(always)]
            pub(crate) const fn $name() -> Ordering {
                Ordering::$order
            }
        )*};
    }

    orders! {
        store_write_pos Release, load_write_pos Acquire,
        store_read_pos Release, load_read_pos Acquire,
        store_idle Release, load_busy Acquire,
        store_entry_crc Release, load_entry_crc Acquire,
    }
}

#[cfg(all(test, loom))]
mod chosen {
    use crate::sync::Ordering;
    use std::sync::atomic::AtomicUsize;

    /// Which order the running model weakens; 0 = none.
    pub(crate) static WEAKENED: AtomicUsize = AtomicUsize::new(0);

    macro_rules! orders {
        ($($name:ident $order:ident $number:literal),* $(,)?) => {$(
            pub(crate) fn $name() -> Ordering {
                if WEAKENED.load(std::sync::atomic::Ordering::Relaxed) == $number {
                    Ordering::Relaxed
                } else {
                    Ordering::$order
                }
            }
        )*};
    }

    orders! {
        store_write_pos Release 1, load_write_pos Acquire 2,
        store_read_pos Release 3, load_read_pos Acquire 4,
        store_idle Release 5, load_busy Acquire 6,
        store_entry_crc Release 7, load_entry_crc Acquire 8,
    }
}

pub(crate) use chosen::*;
