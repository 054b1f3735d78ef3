//! Messages to the person who runs the service: standard error, and never a panic for it.

use std::io::Write;

/// Writes one line to standard error. When that cannot be written there is nobody left to tell:
/// logging must not end the service for it.
pub(crate) fn say(message: &str) {
    let line = format!("stormlog: {message}\n");
    if std::io::stderr().write_all(line.as_bytes()).is_err() {
        // See above.
    }
}
