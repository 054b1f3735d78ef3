//! Any text as stress rules, and any lines under them.
#![no_main]

#[path = "../bodies.rs"]
mod bodies;
#[path = "../../tests/support/session.rs"]
mod session;
#[path = "../../tests/support/mod.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::rules(data));
