//! A flight recorder for services.

extern crate self as stormlog;

pub mod error;
pub mod ledger;
pub mod record;
pub mod segment;
mod sys;

#[cfg(feature = "cli")]
pub mod cli;

pub use error::Error;

#[doc(hidden)]
pub use bytemuck;
