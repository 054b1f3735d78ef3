//! A flight recorder for services: structured logging that a program can leave on under stress.
//!
//! Each thread writes binary records into a ring of its own; one background thread copies them
//! into segment files; when the session is closed they become JSON Lines, one file per category.
//! A [ledger](mod@ledger) counts every record that was offered: written, or dropped for a named
//! reason. A push does not wait, lock, allocate or format; its only system call is a wake of the
//! sleeping writer, counted and at most one per sleep. (The first push of a thread registers the
//! end of the thread with the C library, which may allocate for that.)
//!
//! It is not a store that never loses a record, not made for `log` or `tracing` first, not a log
//! shipper, and not portable: Linux, 64-bit, little-endian.
//!
//! ```
//! use std::time::Instant;
//! use stormlog::record::{DurationMs, ShortText, Symbol};
//!
//! stormlog::record! { struct Request in "requests" keep Sampled key id {
//!     path: Symbol, id: ShortText<40>, duration_ms: DurationMs<2>,
//! } }
//!
//! # fn main() -> Result<(), stormlog::Error> {
//! let session = stormlog::Session::from_env()?; // records if DEBUG_MODE=true
//! let log = session.log(); // clone it, send it to any thread
//! let begin = Instant::now();
//! let path = stormlog::symbol!("/ace/getstream");
//! log.push(&Request { path, id: "4f6c0a", duration_ms: begin.elapsed() });
//! let report = session.close()?; // drains, converts, returns the ledger
//! assert!(report.ledger.is_exact() && report.faults.is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! # When records are lost
//!
//! - The ring of the thread is full, or no ring is left for it: dropped and counted at once, as
//!   [`Outcome::Dropped`] says. `Always` records may use the last quarter of the ring.
//! - A long record finds no chunks; a signal handler pushes inside a push: dropped and counted.
//! - A [`Record`](record::Record) of the caller's own panics in the push, or a push has not
//!   returned 1 s after [`Session::close`] began: counted as interrupted.
//! - There is no room on the disk: records wait in the rings; what is left when the session is
//!   closed is counted as dropped.
//! - The process is killed, or ends without closing the session: nothing is lost where the rings
//!   lie in a file ([`RingStorage`]), [`recover`] puts them back into the session; with rings in
//!   memory what is in them is lost.
//! - The machine is lost: also what the kernel had not yet written; see [`Session::sync_now`].
//!
//! A record over `record_bytes_max` is cut and flagged. While a category is off, after `close()`
//! and in a forked child a push does nothing and nothing is counted; [`Log::push_lazy`] does not
//! evaluate the arguments of a record whose category is off. The table in the README has every
//! case.
//!
//! # Features
//!
//! - `cli` (default): the command line tool and its module `cli`. Turn it off to embed the
//!   engine alone.
//! - `rules` (part of `cli`): files of stress rules, which are TOML. Without it the built-in rules
//!   remain.
//! - `tracing`, `log`, `tower`, or `adapters` for all three: the adapters of the module `adapters`,
//!   each with the crates that it adapts.
//! - `failpoints`: for tests of recovery only. Processes can be made to kill themselves at named
//!   points.

extern crate self as stormlog;

#[macro_use]
mod fail;

#[cfg(any(feature = "log", feature = "tower", feature = "tracing"))]
pub mod adapters;
mod config;
pub mod context;
pub mod convert;
mod core;
pub mod durations;
pub mod error;
mod gates;
pub mod ledger;
mod local;
mod losses;
pub mod panics;
mod policy;
mod producer;
pub mod record;
pub mod recover;
pub mod redact;
mod resources;
mod ring;
pub mod sampling;
pub mod segment;
mod session;
pub mod signals;
pub mod span;
pub mod stress;
mod sync;
mod sys;
mod wake;
mod writer;

#[cfg(feature = "cli")]
pub mod cli;

#[doc(hidden)]
pub use config::check_settings;
pub use config::{Conversion, Durability, RingStorage, SegmentSink, WriterCore};
pub use error::Error;
pub use producer::{Log, Outcome};
pub use session::{CloseReport, ConvertedFile, Session, SessionBuilder};

#[doc(hidden)]
pub use bytemuck;

/// The examples of the documents, compiled as doctests.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/DEBUG_MODE.md")]
    struct DebugMode;
}
