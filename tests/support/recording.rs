//! Sessions of tests.

use std::time::Duration;

use stormlog::{Session, SessionBuilder};

/// A builder whose sessions do not care how full the disk of the machine is, and how slow. By
/// default a session leaves a twentieth of it free, and samples and sheds when there is less; and
/// its close leaves lines to a later conversion that are not there after 5 s.
pub fn builder() -> SessionBuilder {
    Session::builder()
        .keep_free_bytes(0)
        .close_deadline(Duration::from_secs(120))
}
