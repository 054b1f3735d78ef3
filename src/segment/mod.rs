//! Segment files: their format, writing and reading.
//!
//! What reads files takes them for hostile: no indexing, no arithmetic that can overflow. What
//! writes computes with its own bounds and is exempt below.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used
    )
)]

pub mod clock;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub mod entry;
pub mod figures;
pub mod files;
mod found;
mod growing;
pub mod header;
mod headless;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub mod layout;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(crate) mod ledger_file;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(crate) mod prepare;
pub mod published;
pub mod reader;
pub mod records;
pub mod registry;
pub mod resync;
pub mod rings;
mod seal;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(crate) mod sealed;
pub(crate) mod shm;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(crate) mod sink;
pub mod source;
pub mod survey;
#[allow(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
pub(crate) mod writer;
