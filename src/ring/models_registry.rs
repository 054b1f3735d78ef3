//! Loom models of the registry. What `models` says of models holds here too.
#![expect(unsafe_code, reason = "models share memory as the real registry does")]

use loom::sync::Arc;
use loom::thread;

use super::models::check;
use super::registry::{Memory, Registry, RegistryCursor};
use crate::segment::entry::Entry;
use crate::sync::AtomicU32;
use crate::sync::Ordering::{Acquire, Release};

/// Two threads append to the registry while the writer follows it: every entry is seen once, and
/// only whole.
#[test]
fn loom_registry() {
    check(100, &["store_entry_crc", "load_entry_crc"], || {
        let mut words = vec![0_u64; 16];
        // SAFETY: the words live until the end of the model.
        let memory = unsafe { Memory::new(words.as_mut_ptr().cast(), words.len() * 8) };
        let registry = Arc::new(Registry::new(memory));
        let append = |id: u32| {
            let registry = Arc::clone(&registry);
            thread::spawn(move || registry.append(&Entry::Symbol(id, "s")).unwrap())
        };
        let (a, b) = (append(1), append(2));
        let reader = thread::spawn({
            let registry = Arc::clone(&registry);
            move || {
                let (mut cursor, mut seen) = (RegistryCursor::default(), 0);
                cursor.advance(&registry, |entry| seen += entry[12]);
                (cursor, seen)
            }
        });
        a.join().unwrap();
        b.join().unwrap();
        let (mut cursor, mut seen) = reader.join().unwrap();
        cursor.advance(&registry, |entry| seen += entry[12]);
        assert_eq!(seen, 3);
    });
}

/// Whoever learns of an entry finds it, also behind entries of other threads of which nobody told
/// it: a record is never drained without its schema.
#[test]
fn loom_registry_order() {
    check(100, &["store_tail", "load_tail", "load_moved_tail"], || {
        let mut words = vec![0_u64; 16];
        // SAFETY: the words live until the end of the model.
        let memory = unsafe { Memory::new(words.as_mut_ptr().cast(), words.len() * 8) };
        let registry = Arc::new(Registry::new(memory));
        let told = Arc::new(AtomicU32::new(0));
        let append = |registry: &Registry, id| registry.append(&Entry::Symbol(id, "s")).unwrap();
        let other = thread::spawn({
            let registry = Arc::clone(&registry);
            move || {
                append(&registry, 1);
                append(&registry, 2);
            }
        });
        let teller = thread::spawn({
            let (registry, told) = (Arc::clone(&registry), Arc::clone(&told));
            move || {
                append(&registry, 4);
                told.store(1, Release);
            }
        });
        let reader = thread::spawn({
            let (registry, told) = (Arc::clone(&registry), Arc::clone(&told));
            move || {
                let (mut cursor, mut seen) = (RegistryCursor::default(), 0);
                if told.load(Acquire) == 1 {
                    cursor.advance(&registry, |entry| seen |= entry[12]);
                    assert_eq!(seen & 4, 4, "the entry is hidden behind another one");
                }
            }
        });
        other.join().unwrap();
        teller.join().unwrap();
        reader.join().unwrap();
    });
}
