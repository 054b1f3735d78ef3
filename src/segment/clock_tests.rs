//! The clock map against an oracle in floating point, and its promises under any points.

use super::*;
use proptest::prelude::*;

const TPS: u64 = 3_000_000_000;

fn header(ticks_per_second: u64) -> FileHeader {
    FileHeader {
        ticks_per_second,
        start_ticks: 1000,
        start_utc_ns: 50 * SECOND_NS,
        start_mono_ns: 7 * SECOND_NS,
        ..bytemuck::Zeroable::zeroed()
    }
}

/// A point at `seconds` of the counter, with the other clocks `utc_ms` and `mono_ms` ahead of it.
fn point(seconds: u64, utc_ms: i64, mono_ms: i64) -> ClockPoint {
    let ns =
        |start: u64, ms: i64| (start + seconds * SECOND_NS).wrapping_add_signed(ms * 1_000_000);
    ClockPoint {
        ticks: 1000 + seconds * TPS,
        utc_ns: ns(50 * SECOND_NS, utc_ms),
        mono_ns: ns(7 * SECOND_NS, mono_ms),
    }
}

fn at(map: &ClockMap, seconds: f64) -> (f64, f64) {
    let time = map.time(1000 + (seconds * TPS as f64) as u64);
    (
        time.elapsed_ns as f64 / 1e9,
        time.utc_ns as f64 / 1e9 - 50.0,
    )
}

#[track_caller]
fn assert_near(found: (f64, f64), expected: (f64, f64)) {
    let near = (found.0 - expected.0).abs() < 1e-6 && (found.1 - expected.1).abs() < 1e-6;
    assert!(near, "{found:?} is not {expected:?}");
}

#[test]
fn without_points_the_first_estimate_holds() {
    let map = ClockMap::new(&header(TPS), []);
    assert_near(at(&map, 2.5), (2.5, 2.5));
    assert_eq!(map.time(0), map.time(1000));
    assert_eq!(map.time(999).elapsed_ns, 0);
}

#[test]
fn an_error_is_made_up_within_a_second() {
    // The counter runs 1 % slow: 10 ms are missing after one second.
    let map = ClockMap::new(&header(TPS), [point(1, 10, 10)]);
    assert_near(at(&map, 1.0), (1.0, 1.0));
    assert_near(at(&map, 1.5), (1.0 + 0.505 + 0.005, 1.0 + 0.505 + 0.005));
    assert_near(at(&map, 2.0), (1.0 + 1.01 + 0.01, 2.02));
    assert_near(at(&map, 3.0), (1.0 + 2.02 + 0.01, 3.03));
}

#[test]
fn a_clock_step_moves_utc_at_once_and_elapsed_not_at_all() {
    let map = ClockMap::new(
        &header(TPS),
        [point(1, 0, 0), point(2, -5000, 0), point(3, -5000, 0)],
    );
    assert_near(at(&map, 1.999_999_9), (1.999_999_9, 1.999_999_9));
    assert_near(at(&map, 2.0), (2.0, -3.0));
    assert_near(at(&map, 3.5), (3.5, -1.5));
}

#[test]
fn a_counter_that_stood_still_makes_elapsed_jump() {
    let map = ClockMap::new(&header(TPS), [point(1, 0, 0), point(2, 60_000, 60_000)]);
    assert_near(at(&map, 1.9), (1.9, 1.9));
    let (elapsed, utc) = at(&map, 2.0);
    assert_near((elapsed, utc), (62.0, 62.0));
    // The rate is bounded to twice the first estimate.
    assert_near(at(&map, 3.0), (64.0, 64.0));
}

#[test]
fn a_clock_that_stands_still_never_makes_elapsed_fall() {
    let mut late = point(2, 0, 0);
    late.mono_ns = 7 * SECOND_NS;
    let map = ClockMap::new(&header(TPS), [point(1, 0, 0), late]);
    let (at_point, _) = at(&map, 2.0);
    let (after, _) = at(&map, 3.0);
    assert!((at_point - 2.0).abs() < 1e-6);
    assert!(
        (after - 2.0).abs() < 1e-6,
        "half the rate less half a second: {after}"
    );
}

#[test]
fn at_most_half_a_second_is_made_up_within_a_second() {
    let map = ClockMap::new(&header(TPS), [point(1, 0, -2500), point(2, 0, -2500)]);
    let elapsed = |seconds| at(&map, seconds).0;
    assert!(
        (elapsed(2.0) - 1.0).abs() < 1e-6,
        "half the rate less half a second"
    );
    assert!(
        (elapsed(3.0) - 1.5).abs() < 1e-6,
        "the rate less half a second"
    );
    assert!((elapsed(4.0) - 2.5).abs() < 1e-6, "the rate");
}

/// Suspended for an hour, while the counter ran and the monotonic clock stood still: elapsed time
/// keeps the hour, goes on at its pace, and UTC agrees throughout.
#[test]
fn a_suspension_in_which_the_counter_runs_on_counts_as_elapsed() {
    let asleep = |seconds| point(seconds, 0, -3_600_000);
    let points = [point(1, 0, 0), asleep(3700), asleep(3701), asleep(3702)];
    let map = ClockMap::new(&header(TPS), points);
    for seconds in [0.5, 1.5, 3699.0, 3700.0, 3700.5, 3701.5, 3703.0, 4000.0] {
        assert_near(at(&map, seconds), (seconds, seconds));
    }
}

/// The same twice, with a counter that runs 10 ppm fast all the time: nothing of it is lost to the
/// suspensions.
#[test]
fn what_a_counter_is_wrong_by_is_made_up_after_a_suspension_too() {
    // In ms: what the monotonic clock is behind the counter.
    let points = [
        point(1000, -10, -10),
        point(5000, -50, -3_600_050),
        point(6000, -60, -3_600_060),
        point(9000, -90, -5_400_090),
        point(10_000, -100, -5_400_100),
    ];
    let map = ClockMap::new(&header(TPS), points);
    let (elapsed, utc) = at(&map, 10_002.0);
    // What was wrong when the machine fell asleep is not known: at most the error of one interval.
    assert!((elapsed - 10_001.9).abs() < 0.08, "{elapsed}");
    assert!((utc - 10_001.9).abs() < 0.08, "{utc}");
}

/// Suspended for an hour, while counter and monotonic clock stood still: only UTC has moved.
#[test]
fn a_suspension_in_which_the_counter_stands_still_is_a_step_of_utc() {
    let awake = |seconds| point(seconds, 3_600_000, 0);
    let map = ClockMap::new(&header(TPS), [point(1, 0, 0), awake(2), awake(3)]);
    assert_near(at(&map, 1.9), (1.9, 1.9));
    for seconds in [2.0, 2.5, 3.5, 10.0] {
        assert_near(at(&map, seconds), (seconds, seconds + 3600.0));
    }
}

#[test]
fn points_with_equal_or_earlier_ticks_do_not_count() {
    let points = [point(0, 9000, 9000), point(1, 0, 0), point(1, 500, 500)];
    let map = ClockMap::new(&header(TPS), points);
    let same = ClockMap::new(&header(TPS), [point(1, 0, 0)]);
    for seconds in [0.0, 0.5, 1.0, 1.5, 9.0] {
        assert_eq!(at(&map, seconds), at(&same, seconds));
    }
}

#[test]
fn a_long_interval_does_not_let_utc_fall_while_it_is_slewed() {
    // 2 s behind after 3000 s is below the bound of 0.1 %, but more than a second can hold.
    let map = ClockMap::new(&header(TPS), [point(3000, -2000, 0)]);
    let (_, before) = at(&map, 3000.0);
    let (_, after) = at(&map, 3001.0);
    assert!((before - 3000.0).abs() < 1e-6);
    assert!(after >= before, "{after}");
}

#[test]
fn the_cursor_agrees_with_the_map_in_any_order() {
    let points: Vec<_> = (1..20).map(|s| point(s, (s % 3) as i64 * 700, 0)).collect();
    let map = ClockMap::new(&header(TPS), points);
    let mut cursor = ClockCursor::new(&map);
    let mut ticks = 12_345_u64;
    for _ in 0..10_000 {
        ticks = ticks
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let ticks = ticks % (25 * TPS);
        assert_eq!(cursor.time(ticks), map.time(ticks));
    }
}

fn any_point() -> impl Strategy<Value = ClockPoint> {
    let any = prop_oneof![0..1000_u64, 0..100 * SECOND_NS, any::<u64>()];
    (any.clone(), any.clone(), any).prop_map(|(ticks, utc_ns, mono_ns)| ClockPoint {
        ticks,
        utc_ns,
        mono_ns,
    })
}

proptest! {
    /// Elapsed never falls, whatever the points say; so does UTC between two points.
    #[test]
    fn elapsed_never_falls(
        mut points in prop::collection::vec(any_point(), 0..12),
        ticks_per_second in prop_oneof![Just(0), Just(1), Just(TPS), any::<u64>()],
        start in any_point(),
        mut probes in prop::collection::vec(prop_oneof![0..100 * SECOND_NS, any::<u64>()], 2..40),
    ) {
        points.sort_by_key(|point| point.ticks);
        let header = FileHeader {
            ticks_per_second,
            start_ticks: start.ticks,
            start_utc_ns: start.utc_ns,
            start_mono_ns: start.mono_ns,
            ..bytemuck::Zeroable::zeroed()
        };
        let map = ClockMap::new(&header, points.iter().copied());
        for point in &points {
            probes.extend([point.ticks.saturating_sub(1), point.ticks, point.ticks.saturating_add(1)]);
        }
        probes.sort_unstable();
        for pair in probes.windows(2) {
            let (a, b) = (map.time(pair[0]), map.time(pair[1]));
            prop_assert!(a.elapsed_ns <= b.elapsed_ns, "{pair:?}");
            let stepped = points.iter().any(|p| p.ticks > pair[0] && p.ticks <= pair[1]);
            prop_assert!(stepped || a.utc_ns <= b.utc_ns, "{pair:?}");
        }
    }

    /// Clocks that agree but for some jitter: the map stays within it.
    #[test]
    fn the_map_follows_clocks_that_agree(jitter in prop::collection::vec(-200_000..200_000_i64, 1..60)) {
        let points: Vec<_> = (1_u64..).zip(&jitter).map(|(second, jitter)| {
            let exact = point(second, 0, 0);
            ClockPoint {
                utc_ns: exact.utc_ns.wrapping_add_signed(*jitter),
                mono_ns: exact.mono_ns.wrapping_add_signed(*jitter),
                ..exact
            }
        }).collect();
        let map = ClockMap::new(&header(TPS), points);
        for tenth in 0..jitter.len() * 10 {
            let seconds = tenth as f64 / 10.0;
            let (elapsed, utc) = at(&map, seconds);
            prop_assert!((elapsed - seconds).abs() < 0.002, "{elapsed} at {seconds}");
            prop_assert!((utc - seconds).abs() < 0.002, "{utc} at {seconds}");
        }
    }
}

#[test]
fn times_long_past_are_given_up_and_the_last_ones_stay() {
    const KEEP: usize = 10;
    let second = |number: u64| 2 * number;
    let points = (1..=1000).map(|number| point(second(number), number as i64 % 3, 0));
    let whole = ClockMap::new(&header(TPS), points.clone());
    let mut map = ClockMap::new(&header(TPS), []);
    for point in points {
        map.add(point);
        map.forget(KEEP);
        assert!(map.pieces.len() <= 4 * KEEP, "{}", map.pieces.len());
    }
    for half in 2 * second(1001 - KEEP as u64)..2 * second(1002) {
        let ticks = 1000 + half * TPS / 2;
        assert_eq!(map.time(ticks), whole.time(ticks));
    }
}
