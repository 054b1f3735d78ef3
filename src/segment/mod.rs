//! Segment files: their format, writing and reading.

pub mod entry;
pub mod layout;
