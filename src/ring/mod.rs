//! Rings: where producers leave their records for the writer.

mod aggregate;
mod aggregate_bytes;
mod buffer;
mod busy;
mod cell;
mod header;
mod large;
#[cfg(all(test, loom))]
pub(crate) mod models;
#[cfg(all(test, loom))]
mod models_barrier;
#[cfg(all(test, loom))]
mod models_registry;
#[cfg(all(test, loom))]
mod models_spill;
mod plan;
mod registry;
mod slot;
mod spill;
mod spsc;
#[cfg(all(test, not(loom)))]
mod spsc_tests;
mod stack;
mod storage;
mod used;

pub(crate) use aggregate::{AGGREGATE_BYTES, Observation, SLOT_OTHER, quick_cell};
pub(crate) use aggregate_bytes::read_aggregates;
pub(crate) use busy::{BusyGuard, Refused};
pub(crate) use cell::Cell;
pub(crate) use large::{BODY_BYTES, CHUNK_BYTES, LargeChunks};
pub(crate) use plan::{
    RING_BYTES_MIN, SPILL_BYTES_MAX, SPILL_BYTES_MIN, StorageSizes, TOTAL_BYTES_MAX,
    TOTAL_BYTES_MIN,
};
pub(crate) use registry::RegistryCursor;
pub(crate) use slot::RingSlot;
pub(crate) use spill::{NO_RING, Origin, SLOT_BYTES, SLOT_RECORD_BYTES, SpillReader, read_slot};
pub(crate) use spsc::{Consumer, Place};
pub(crate) use storage::{Backend, Prefaulted, REGISTRY_BYTES, Storage, count_own};
