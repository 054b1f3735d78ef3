//! How soon records are left out when the drain stands still.

use std::time::{Duration, Instant};

use stormlog::Outcome;

use super::{Keyed, median, push_plain, remove, start};

/// Time until a record is left out. `push` is called in a loop, at most until `limit` has passed.
fn until_left_out(from: Instant, mut push: impl FnMut(u64) -> Outcome) -> Duration {
    for number in 0.. {
        if push(number) == Outcome::SampledOut {
            break;
        }
        assert!(from.elapsed() < Duration::from_secs(10), "no reaction");
    }
    from.elapsed()
}

fn print_reaction(what: &str, times: &mut [f64]) {
    let median = median(times);
    println!(
        "reaction to {what}: median {median:.2} ms, longest {:.2} ms of {}; bar 5 ms",
        times[times.len() - 1],
        times.len()
    );
}

/// How soon records are left out when nothing is drained any more, under full load.
pub fn reactions(rounds: usize) {
    let mut still = Vec::new();
    for _ in 0..rounds {
        let session = start("sampling-still", true);
        let log = session.log();
        push_plain(&log, 0);
        session.pause_writer();
        let took = until_left_out(Instant::now(), |number| push_plain(&log, number));
        still.push(took.as_secs_f64() * 1e3);
        remove(session);
    }
    print_reaction("a writer that stands still", &mut still);

    let mut missing = Vec::new();
    for _ in 0..rounds {
        let session = start("sampling-missing", true);
        let log = session.log();
        session.hold_segments(true);
        // Keys do not follow the ring: what leaves them out is the writer. A key of its own for
        // each record, at two million records per second. The last look that found the drain
        // going on is the begin.
        let mut alive = (session.drained_bytes(), Instant::now());
        let mut next = Instant::now();
        for number in 0_u64.. {
            let id = number.to_string();
            if log.push(&Keyed::new(&id, number)) == Outcome::SampledOut {
                break;
            }
            if number % 16 == 0 {
                let drained = session.drained_bytes();
                if drained != alive.0 {
                    alive = (drained, Instant::now());
                }
                assert!(alive.1.elapsed() < Duration::from_secs(10), "no reaction");
                next += Duration::from_micros(8);
                while Instant::now() < next {
                    std::hint::spin_loop();
                }
            }
        }
        missing.push(alive.1.elapsed().as_secs_f64() * 1e3);
        session.hold_segments(false);
        remove(session);
    }
    print_reaction("a segment that is not ready", &mut missing);
}
