//! The parts of the ring storage, and how `ring_total_bytes` is divided into rings: few large ones
//! for the threads that come first, small ones for the many that may follow. The total is a hard
//! bound.

use bytemuck::{Pod, Zeroable};

use super::header::{COUNTER_PAGE_BYTES, RING_HEADER_BYTES};
use crate::segment::layout;
pub(crate) use crate::segment::layout::{RING_BYTES_MIN, ring_capacities};

/// The smallest total that makes sense.
pub(crate) const TOTAL_BYTES_MIN: usize = 64 << 10;
/// The largest total.
pub(crate) const TOTAL_BYTES_MAX: usize = 4 << 30;
/// The smallest spill: 8 slots.
pub(crate) const SPILL_BYTES_MIN: usize = 4096;
/// The largest spill.
pub(crate) const SPILL_BYTES_MAX: usize = 256 << 20;
/// Bytes beside the data of a ring.
pub(crate) const RING_OVERHEAD: usize = RING_HEADER_BYTES + COUNTER_PAGE_BYTES;

const _: () = assert!(RING_OVERHEAD == layout::RING_OVERHEAD);

/// Where the parts of the storage lie, for whoever finds it; behind the file header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub(super) struct Geometry {
    pub(super) pages_offset: u64,
    pub(super) pages_count: u64,
    pub(super) registry_offset: u64,
    pub(super) registry_bytes: u64,
    pub(super) large_offset: u64,
    pub(super) large_bytes: u64,
    pub(super) rings_offset: u64,
    pub(super) ring_total_bytes: u64,
    pub(super) spill_offset: u64,
    pub(super) spill_bytes: u64,
    pub(super) spill_slot_bytes: u64,
    pub(super) aggregate_offset: u64,
    pub(super) aggregate_bytes: u64,
    /// 1 from the beginning of a close on.
    pub(super) phase: u64,
}

/// How large the parts are that settings decide.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_field_names,
    reason = "the names of the settings, unit last"
)]
pub(crate) struct StorageSizes {
    pub(crate) ring_total_bytes: usize,
    pub(crate) large_total_bytes: usize,
    pub(crate) spill_total_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::layout::RINGS_MAX;

    #[test]
    fn total_is_a_hard_bound() {
        for total in [
            TOTAL_BYTES_MIN,
            100_000,
            1 << 20,
            16 << 20,
            1 << 30,
            TOTAL_BYTES_MAX,
        ] {
            let rings = ring_capacities(total);
            let sum: usize = rings.iter().map(|capacity| capacity + RING_OVERHEAD).sum();
            assert!(sum <= total, "{total}: {sum}");
            assert!(!rings.is_empty() && rings.len() <= RINGS_MAX);
            assert!(
                rings
                    .iter()
                    .all(|c| c.is_power_of_two() && *c >= RING_BYTES_MIN)
            );
        }
    }

    /// The table in docs/ARCHITECTURE.md.
    #[test]
    fn default_total_serves_600_threads() {
        let rings = ring_capacities(16 << 20);
        assert!(rings.len() >= 600, "{}", rings.len());
        assert_eq!(rings[7], 512 << 10);
        assert_eq!(rings[63], 64 << 10);
        assert_eq!(rings[287], 16 << 10);
        assert_eq!(rings[599], 8 << 10);
    }
}
