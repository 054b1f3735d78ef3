//! The edge to the operating system.

pub(crate) mod dir;
