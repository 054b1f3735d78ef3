//! The setting `durability`.

use std::time::Duration;

/// What a session brings to the disk while it records, so that it survives the loss of the machine.
/// `docs/DURABILITY.md` says what is promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: the kernel writes when it wants to, usually within 35 s.
    #[default]
    Off,
    /// The open segment, sealed ones and their names, each time after this pause (10 ms to 1 h).
    Interval(Duration),
    /// Each segment when it is sealed, and its name.
    Segment,
}
