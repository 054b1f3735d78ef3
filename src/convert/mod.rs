//! Segments to JSON Lines: `{session}_{category}.jsonl`, one line per record, in order.
//!
//! ```text
//!  segments --index--> block list, registry, clock --merge--> batches --render--> lines --> files
//!            pass 1                                  pass 2             (pure)
//! ```
//!
//! The first pass checks every block and learns all clock points; the second merges the records
//! of all producers and renders them. Both run on any number of threads, which hand in what they
//! have made in order: the lines do not depend on their number. Memory is bounded by one block per
//! producer, 32 bytes per block, the registry, and some MiB of lines. Damage is not an error: what
//! is valid is converted, what is not is counted and named in [`ConvertReport::faults`]. FORMAT.md
//! section 9 is normative.

mod adopt;
mod batch;
mod buffer;
mod control;
mod digits;
mod ends;
mod heap;
mod index;
mod json;
mod json_text;
mod large;
mod lines;
mod live;
mod merge;
mod output;
mod plan;
mod records;
mod render;
mod report;
mod run;
mod scan;
mod scrub;
mod time;
mod turns;
mod unread;

pub use control::{ConvertOptions, Progress};
pub use json::is_escaped;
pub(crate) use live::LiveConverter;
pub use output::{LinePlace, LineSink};
pub use plan::{free_name, is_reserved};
pub use records::{RecordView, visit_records};
pub use report::{ConvertReport, LeftOut, parse_ledger};
#[allow(
    unused_imports,
    reason = "for a session that converts itself when it is closed"
)]
pub(crate) use run::{convert_into, convert_over};
pub use run::{convert_lines, convert_session};
pub use time::rfc3339;
