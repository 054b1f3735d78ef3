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
        store_state Release, load_state Acquire,
    }
}

#[cfg(all(test, loom))]
mod chosen {
    use crate::sync::{Ordering, weakened};

    macro_rules! orders {
        ($($name:ident $order:ident),* $(,)?) => {$(
            pub(crate) fn $name() -> Ordering {
                if weakened(stringify!($name)) { Ordering::Relaxed } else { Ordering::$order }
            }
        )*};
    }

    orders! {
        store_write_pos Release, load_write_pos Acquire,
        store_read_pos Release, load_read_pos Acquire,
        store_idle Release, load_busy Acquire,
        store_entry_crc Release, load_entry_crc Acquire,
        store_state Release, load_state Acquire,
    }
}

pub(crate) use chosen::*;
