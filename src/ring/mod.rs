//! Rings: where producers leave their records for the writer.

mod buffer;
mod busy;
mod header;
mod large;
#[cfg(all(test, loom))]
mod models;
mod order;
mod plan;
mod registry;
mod slot;
mod spsc;
#[cfg(all(test, not(loom)))]
mod spsc_tests;
mod stack;
mod storage;

pub(crate) use busy::{BusyGuard, Refused};
pub(crate) use large::LargeChunks;
pub(crate) use plan::{RING_BYTES_MIN, TOTAL_BYTES_MAX, TOTAL_BYTES_MIN};
pub(crate) use registry::RegistryCursor;
pub(crate) use slot::RingSlot;
pub(crate) use spsc::{Consumer, Place};
pub(crate) use storage::{Backend, REGISTRY_BYTES, Storage, count_own};
