//! Messages to the person who runs the service: standard error, and never a panic for it.

use std::os::fd::AsFd;

use rustix::io::{Errno, write};

/// Writes one line to standard error. When that cannot be written there is nobody left to tell:
/// logging must not end the service for it.
///
/// Past the lock of [`std::io::Stderr`], which is locked for ever in a child that was forked while
/// another thread wrote.
pub(crate) fn say(message: &str) {
    put(format!("stormlog: {message}\n").as_bytes());
}

/// Writes a whole line, without an allocation.
pub(crate) fn put(line: &[u8]) {
    let mut rest = line;
    while !rest.is_empty() {
        match write(std::io::stderr().as_fd(), rest) {
            Err(Errno::INTR) => {}
            Ok(0) | Err(_) => return,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
        }
    }
}
