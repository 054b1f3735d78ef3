//! The setting `segment_sink`.

use super::bad;
use crate::error::Error;

/// How segments are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentSink {
    /// What was measured to be better: `pwrite` (ARCHITECTURE.md, section 9.1).
    #[default]
    Auto,
    /// Into a mapping: a process whose segment loses its space or is cut by somebody is killed by
    /// SIGBUS, unless `sigbus_guard` is on.
    Mapped,
    /// By `pwrite`: nothing that happens to the file can kill the process.
    Pwrite,
}

impl SegmentSink {
    pub(super) fn parse(name: &str, value: &str) -> Result<Self, Error> {
        let all = [Self::Auto, Self::Mapped, Self::Pwrite];
        let found = all.into_iter().find(|sink| sink.name() == value.trim());
        found.ok_or_else(|| bad(name, value, "give auto, mapped or pwrite"))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Mapped => "mapped",
            Self::Pwrite => "pwrite",
        }
    }
}
