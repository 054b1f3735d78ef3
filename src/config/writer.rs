//! The setting `writer_core`.

use super::bad;
use crate::error::Error;

/// Where the writer thread runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriterCore {
    /// The last core that the process may use, when it may use more than one; else not pinned.
    #[default]
    Auto,
    /// Wherever the scheduler puts it.
    Off,
    /// This core.
    Core(usize),
}

pub(super) fn parse_writer_core(name: &str, value: &str) -> Result<WriterCore, Error> {
    match value.trim() {
        "auto" => Ok(WriterCore::Auto),
        "off" => Ok(WriterCore::Off),
        number => number
            .parse()
            .map(WriterCore::Core)
            .map_err(|_| bad(name, value, "give auto, off or the number of a core")),
    }
}
