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
mod spsc;
mod storage;

pub(crate) use busy::Refused;
pub(crate) use header::state;
pub(crate) use plan::{TOTAL_BYTES_MAX, TOTAL_BYTES_MIN, ring_capacities};
pub(crate) use registry::{Registry, RegistryCursor};
pub(crate) use spsc::{Consumer, Full, headroom};
pub(crate) use storage::{Backend, REGISTRY_BYTES, RingSlot, Storage};
