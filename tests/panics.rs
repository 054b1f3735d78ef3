//! Panics become records of `errors`; the hook that was there is called all the same.
//!
//! One test: hooks are the process's.

#[path = "support/closed.rs"]
mod closed;
#[path = "support/recording.rs"]
mod recording;

use std::panic::{catch_unwind, panic_any, set_hook};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use closed::close_clean;
use stormlog::context::Context;

static CALLED: AtomicU32 = AtomicU32::new(0);

#[inline(never)]
fn a_function_with_a_name() {
    panic!("on purpose: {}", 7);
}

#[test]
fn panics_are_recorded_and_told_to_the_hook_before() {
    set_hook(Box::new(|_| {
        CALLED.fetch_add(1, SeqCst);
    }));
    let temp = tempfile::tempdir().unwrap();
    let session = recording::builder().dir(temp.path()).start().unwrap();
    let log = session.log();
    let none = std::thread::spawn(|| panic!("before")).join();
    assert!(none.is_err());
    let guard = stormlog::panics::record(&log);
    let thread = std::thread::Builder::new().name("doomed".to_owned());
    let ended = thread.spawn(|| {
        let _scope = Context::new().request_id("r7").enter();
        a_function_with_a_name();
    });
    assert!(ended.unwrap().join().is_err());
    assert!(catch_unwind(|| panic_any(7_u8)).is_err());
    drop(guard);
    assert!(catch_unwind(|| panic!("after the guard")).is_err());
    assert_eq!(CALLED.load(SeqCst), 4);
    // A session that is closed takes no record, and nobody minds.
    let _guard = stormlog::panics::record(&log);
    let lines = close_clean(session);
    assert!(catch_unwind(|| panic!("after the close")).is_err());
    assert_eq!(CALLED.load(SeqCst), 5);
    let [named, caught] = &lines["errors"][..] else {
        panic!("{:?}", lines.get("errors"))
    };
    assert_eq!(named["error_message"], "on purpose: 7");
    assert_eq!(
        (&named["component"], &named["error_type"]),
        (&"panic".into(), &"panic".into())
    );
    assert_eq!(
        (&named["thread"], &named["request_id"]),
        (&"doomed".into(), &"r7".into())
    );
    let location = named["location"].as_str().unwrap();
    assert!(location.starts_with("tests/panics.rs:"), "{location}");
    let traceback = named["traceback"].as_str().unwrap();
    assert!(traceback.contains("a_function_with_a_name"), "{traceback}");
    assert_eq!(caught["error_message"], "a value that is no text");
}
