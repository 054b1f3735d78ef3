//! Sessions of tests.

use stormlog::{Session, SessionBuilder};

/// A builder whose sessions do not care how full the disk of the machine is. By default a session
/// leaves a twentieth of it free, and samples and sheds when there is less.
pub fn builder() -> SessionBuilder {
    Session::builder().keep_free_bytes(0)
}
