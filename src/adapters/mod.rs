//! Records of other logging interfaces: `tracing`, `log`, and the requests of `tower` services.
//! Each is a thin layer behind a feature of its own name. docs/ADAPTERS.md says what becomes what.
//!
//! What `tracing` and `log` keep: a record has at most 32 fields of the caller and 16 KiB of their
//! texts (what is cut ends with `...`, fields that are left out are counted in `fields_left_out`);
//! of values with names such as `uri` the query is written as `?[redacted]`, and `headers` is not
//! recorded at all. What all of them keep: a value whose formatting panics becomes `[panicked]`.
//! Other secrets are looked for when segments become lines, as everywhere.

#[cfg(any(feature = "log", feature = "tracing"))]
mod fields;
#[cfg(feature = "log")]
pub mod log;
#[cfg(any(feature = "log", feature = "tracing"))]
mod routes;
#[cfg(feature = "tower")]
pub mod tower;
#[cfg(feature = "tracing")]
pub mod tracing;
