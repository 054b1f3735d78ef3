//! The edge to the operating system.

pub(crate) mod affinity;
pub(crate) mod alive;
pub(crate) mod clock;
pub(crate) mod dir;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod map;
pub(crate) mod prefetch;
pub(crate) mod process;
pub(crate) mod report;
pub(crate) mod reserve;
pub(crate) mod sigbus;
pub(crate) mod signal;
mod stand_in;
