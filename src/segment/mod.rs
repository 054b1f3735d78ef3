//! Segment files: their format, writing and reading.

pub mod entry;
pub mod layout;
pub(crate) mod ledger_file;
pub(crate) mod prepare;
pub(crate) mod writer;
