//! Loom models of who waits for whom: close, doze, flush. What `models` says of models holds here
//! too.

use loom::sync::Arc;
use loom::thread;

use super::models::{Model, PREEMPTIONS, check, explore};
use super::spsc::Consumer;
use super::used::Used;
use crate::sync::Ordering::Relaxed;
use crate::sync::{AtomicU32, barrier};
use crate::wake::Wake;

/// A close that races with pushes: what was kept is drained, what was not is refused.
fn close_against_pushes(fenced: bool) {
    let model = Model::new();
    if fenced {
        model.busy.set_fenced();
    }
    let producer = thread::spawn({
        let model = Arc::clone(&model);
        move || {
            let mut kept = 0;
            for _ in 0..2 {
                let Ok(_guard) = model.enter(|| ()) else {
                    break;
                };
                model.push(kept).unwrap();
                kept += 1;
            }
            kept
        }
    });
    let closer = thread::spawn({
        let model = Arc::clone(&model);
        move || {
            model.busy.close();
            barrier::heavy();
            while model.busy.is_busy() {
                thread::yield_now();
            }
            let (mut consumer, mut next) = (Consumer::new(), 0);
            model.drain(&mut consumer, &mut next);
            next
        }
    });
    let kept = producer.join().unwrap();
    assert_eq!(
        closer.join().unwrap(),
        kept,
        "a kept record was not drained"
    );
}

#[test]
fn loom_close() {
    let weaker = ["light", "heavy", "store_idle", "load_busy"];
    check(20, &weaker, || close_against_pushes(false));
}

/// Where the kernel has no membarrier, the producer's own fence does it.
#[test]
fn loom_close_fenced() {
    let weaker = ["fence_busy", "heavy", "store_idle", "load_busy"];
    let model = || close_against_pushes(true);
    explore(Some(PREEMPTIONS), &["light"], 20, &weaker, model);
}

/// A push while the writer lies down: the writer sees the record and stays up, or the push wakes
/// it.
#[test]
fn loom_doze() {
    check(10, &["light", "heavy"], || {
        let model = Model::new();
        let wake = Arc::new(Wake::default());
        let producer = thread::spawn({
            let (model, wake) = (Arc::clone(&model), Arc::clone(&wake));
            move || {
                let _guard = model.enter(|| wake.wake_if_parked()).unwrap();
                model.push(0).unwrap();
            }
        });
        let writer = thread::spawn({
            let (model, wake) = (Arc::clone(&model), Arc::clone(&wake));
            move || {
                wake.set_dozing(true);
                model.busy.set_doze(true);
                barrier::heavy();
                // Busy first: when the push is over, the ring shows it.
                !model.busy.is_busy() && Consumer::new().committed(model.ring()) == 0
            }
        });
        producer.join().unwrap();
        if writer.join().unwrap() {
            assert_eq!(
                wake.wakes(),
                1,
                "the writer sleeps with a record in the ring"
            );
        }
    });
}

/// The same for a thread that takes its ring while the writer lies down.
#[test]
fn loom_doze_new_ring() {
    check(10, &["fence_new_ring", "heavy"], || {
        let model = Model::new();
        let (wake, used) = (Arc::new(Wake::default()), Arc::new(Used::new()));
        let producer = thread::spawn({
            let (model, wake, used) = (Arc::clone(&model), Arc::clone(&wake), Arc::clone(&used));
            move || {
                assert_eq!(used.take(1), Some(0));
                wake.wake_if_dozing();
                let _guard = model.enter(|| wake.wake_if_parked()).unwrap();
                model.push(0).unwrap();
            }
        });
        let writer = thread::spawn({
            let (model, wake, used) = (Arc::clone(&model), Arc::clone(&wake), Arc::clone(&used));
            move || {
                wake.set_dozing(true);
                used.ask_each(|_| model.busy.set_doze(true));
                let is_quiet =
                    || !model.busy.is_busy() && Consumer::new().committed(model.ring()) == 0;
                used.count() == 0 || is_quiet()
            }
        });
        producer.join().unwrap();
        if writer.join().unwrap() {
            assert_eq!(
                wake.wakes(),
                1,
                "the writer sleeps with a record in the ring"
            );
        }
    });
}

/// A flush that begins after a push has returned finds the record, although the two threads share
/// nothing but a relaxed flag: the barrier orders them.
#[test]
fn loom_flush() {
    check(5, &["light", "heavy"], || {
        let model = Model::new();
        let returned = Arc::new(AtomicU32::new(0));
        let producer = thread::spawn({
            let (model, returned) = (Arc::clone(&model), Arc::clone(&returned));
            move || {
                model.push(0).unwrap();
                // The fence that the flusher's `heavy` causes on this thread.
                barrier::light();
                returned.store(1, Relaxed);
            }
        });
        let flusher = thread::spawn({
            let (model, returned) = (Arc::clone(&model), Arc::clone(&returned));
            move || {
                if returned.load(Relaxed) == 1 {
                    barrier::heavy();
                    assert!(
                        Consumer::new().committed(model.ring()) > 0,
                        "a push was missed"
                    );
                }
            }
        });
        producer.join().unwrap();
        flusher.join().unwrap();
    });
}
