//! How soon sampling begins when nothing is drained any more: counted in bytes, not in time.

#[path = "support/recording.rs"]
mod recording;

use std::time::{Duration, Instant};

use stormlog::ledger::DropReason;
use stormlog::record::ShortText;
use stormlog::segment::entry::PressureCause;
use stormlog::segment::files::SessionFiles;
use stormlog::segment::survey::Survey;
use stormlog::{Conversion, Outcome};

stormlog::record! {
    struct Normal in "performance" keep Sampled { number: u64 }
}

stormlog::record! {
    struct Keyed in "requests" keep Sampled key id { id: ShortText, number: u64 }
}

/// Header and fixed part.
const NORMAL_BYTES: u64 = 16 + 8;

/// The ring of the thread reacts by itself, before it is 5/8 full, and not before it is half full.
#[test]
fn a_ring_that_nobody_drains_presses_before_it_is_full() {
    for (total, ring) in [(64 << 10, 4 << 10), (8 << 20, 256 << 10)] {
        let temp = tempfile::tempdir().unwrap();
        let builder = recording::builder()
            .dir(temp.path())
            .ring_total_bytes(total);
        let session = builder.start().unwrap();
        let log = session.log();
        session.pause_writer();
        let first = (0..ring / NORMAL_BYTES)
            .find(|number| log.push(&Normal { number: *number }) != Outcome::Kept)
            .expect("the ring is full");
        let filled = first * NORMAL_BYTES;
        assert!(
            filled >= ring / 2 - NORMAL_BYTES,
            "too soon: {filled} of {ring}"
        );
        assert!(filled <= ring / 8 * 5, "too late: {filled} of {ring}");
        session.resume_writer();
        let report = session.close().unwrap();
        let account = report.ledger.categories["performance"];
        assert_eq!((account.sampled_out(), account.dropped_total()), (1, 0));
    }
}

/// There is no segment to write to: the writer says so by a pressure that it writes down. Records
/// with a key do not look at the fill of their ring, so only the writer can leave them out.
#[test]
fn a_missing_segment_presses_before_a_ring_is_full() {
    let temp = tempfile::tempdir().unwrap();
    let builder = recording::builder()
        .dir(temp.path())
        .segment_bytes(4 << 20)
        .conversion(Conversion::Later);
    let session = builder.start().unwrap();
    let log = session.log();
    session.hold_segments(true);
    let mut number = 0;
    let mut outcome = Outcome::Kept;
    while outcome == Outcome::Kept {
        assert!(number < 1_000_000, "the segments have no room for so many");
        for _ in 0..500 {
            let id = number.to_string();
            outcome = log.push(&Keyed { id: &id, number });
            number += 1;
            if outcome != Outcome::Kept {
                break;
            }
        }
        // Time for the writer: until it has taken something, or a few of its looks.
        let (drained, start) = (session.drained_bytes(), Instant::now());
        while session.drained_bytes() == drained && start.elapsed() < Duration::from_millis(25) {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    assert_eq!(
        outcome,
        Outcome::SampledOut,
        "dropped before it was sampled"
    );
    session.hold_segments(false);
    session.flush().unwrap();
    let segments = session.segment_dir().unwrap().to_owned();
    let report = session.close().unwrap();
    let account = report.ledger.categories["requests"];
    assert!(report.ledger.is_exact());
    assert_eq!(account.dropped(DropReason::RingFull), 0);
    assert_eq!(account.offered(), number);
    let files = SessionFiles::find(&segments).unwrap().remove(0);
    let survey = Survey::new(&files, false).unwrap();
    let first = survey.registry.pressures().next().unwrap().1;
    assert_eq!(first.cause, PressureCause::NoSegment as u8);
    assert!(first.k > 0, "{first:?}");
}
