//! A flight recorder for services.

extern crate self as stormlog;

mod config;
pub mod convert;
mod core;
pub mod error;
pub mod ledger;
mod local;
mod producer;
pub mod record;
mod ring;
pub mod segment;
mod session;
mod sync;
mod sys;
mod writer;

#[cfg(feature = "cli")]
pub mod cli;

pub use config::{Conversion, RingStorage, WriterCore};
pub use error::Error;
pub use producer::{Log, Outcome};
pub use session::{CloseReport, ConvertedFile, Session, SessionBuilder};

#[doc(hidden)]
pub use bytemuck;
