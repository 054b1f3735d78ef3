//! Segment files: their format, writing and reading.

pub mod clock;
pub mod entry;
pub mod files;
pub mod header;
pub mod layout;
pub(crate) mod ledger_file;
pub(crate) mod prepare;
pub mod reader;
pub mod records;
pub mod registry;
pub mod source;
pub mod survey;
pub(crate) mod writer;
