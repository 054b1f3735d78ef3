//! A flight recorder for services.

extern crate self as stormlog;

pub mod convert;
pub mod error;
pub mod ledger;
pub mod record;
pub mod segment;
mod session;
mod sys;

#[cfg(feature = "cli")]
pub mod cli;

pub use error::Error;
pub use session::{CloseReport, Conversion, ConvertedFile, Log, Outcome, Session, SessionBuilder};

#[doc(hidden)]
pub use bytemuck;
