//! The pressure controller: from what the writer sees in one look to a pressure per category.
//!
//! Pure: time comes with the load, nothing is read or written here, so tests drive it with a
//! simulated clock.
//!
//! ```text
//!   capacity: what the writer drained while it had more than enough to do
//!   overload?  yes: budget = capacity / 2, so that the rings get empty; and half of that, and so
//!                   on, whenever they have not become emptier for 20 ms
//!                   (no segment: halved each tick, 1 ms)
//!              no, for 50 ms: up by a fifth to 0.9 x capacity; from there by 1/25, to find out
//!                   whether there is more
//!   budget over 4 x demand: no pressure
//!   share: the largest L with sum of min(demand[c], L) <= budget
//!   k[c] = 0 if demand[c] <= L, else ceil(log2(demand[c] / L)); down only if it would do for a
//!          demand that is 1.3 times as large, one step in 20 ms
//! ```
//!
//! The share is max-min fair: a category that asks for less than it is never sampled because of a
//! noisy neighbour, and what it leaves over goes to the others.

use crate::record::CATEGORIES_MAX;
use crate::segment::entry::{PRESSURE_MAX, PressureCause as Cause};

/// Least time between two ticks that may change something, ns.
pub(crate) const TICK_NS: u64 = 1_000_000;
/// A ring that is as full as this, when the writer comes to it, is too full.
const FILL_HIGH: f64 = 0.5;
/// Below this there is room to take more.
const FILL_LOW: f64 = 0.25;
/// A writer that takes longer than this from one look to the next falls behind: above `FILL_LOW`
/// that is overload. The time in which it sleeps does not count.
const LAG_HIGH_NS: u64 = 20_000_000;
/// Without a segment this much is overload: nothing flows out. Below it there is time to wait for
/// one, and a service that says little loses nothing by a slow disk.
const FILL_STALLED: f64 = 3.0 / 8.0;
/// Under overload the writer gets this part of its capacity, so that the backlog shrinks.
const DRAINING: f64 = 0.5;
/// Time in which the backlog has to shrink, ns; if it does not, the budget is halved.
const SHRINK_NS: u64 = 20_000_000;
/// What counts as smaller.
const SHRUNK: f64 = 0.98;
/// Time without overload before the budget is raised by one step.
const RELIEF_NS: u64 = 50_000_000;
/// One step: the fourth root of 2.
const RELIEF_STEP: f64 = 1.189_207_115;
/// Up to here the budget is raised quickly.
const NEARLY: f64 = 0.9;
/// One step beyond that.
const PROBE_STEP: f64 = 1.04;
/// The pressure ends when the budget exceeds the demand this many times.
const ENOUGH: f64 = 4.0;
/// Time over which the demand is averaged, and what is drained, ns.
const DEMAND_TAU_NS: f64 = 10_000_000.0;
const DRAIN_TAU_NS: f64 = 20_000_000.0;
/// Budgets are not cut below this, bytes per second.
const BUDGET_MIN: f64 = 1024.0;
/// A pressure falls only if it would do for so many times the demand.
const MARGIN: f64 = 1.3;
/// Time between two steps down.
const STEP_NS: u64 = 20_000_000;
/// An episode ends after this long without pressure, so that there are few of them.
const EPISODE_QUIET_NS: u64 = 2_000_000_000;

/// What the writer saw since the tick before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load<'a> {
    /// Monotonic time, ns.
    pub(crate) now_ns: u64,
    /// Time that the writer was at the rings, ns.
    pub(crate) draining_ns: u64,
    /// Filled part of the fullest ring when the writer came to it, 0..=1.
    pub(crate) fill: f64,
    /// Filled part of all rings together.
    pub(crate) backlog: f64,
    /// Time from the look before to this one, ns.
    pub(crate) lag_ns: u64,
    /// There is no segment to write to.
    pub(crate) stalled: bool,
    /// Least pressure that the disk asks for: space is running out.
    pub(crate) disk: u8,
    /// Bytes that were drained.
    pub(crate) drained: u64,
    /// Bytes of `Sampled` records that were offered, per category; `None` when that is not known.
    pub(crate) demand: Option<&'a [u64; CATEGORIES_MAX]>,
}

/// The pressure of a category has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) category: u8,
    pub(crate) k: u8,
    pub(crate) cause: Cause,
}

/// An episode of sampling has begun or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Episode {
    /// The first category is under pressure.
    Started { k: u8, cause: Cause },
    /// There was no pressure for a while.
    Ended { duration_ns: u64, k_max: u8 },
}

/// Running episode.
#[derive(Clone, Copy, Debug)]
struct Running {
    since_ns: u64,
    k_max: u8,
    /// When the last category came to rest; `None` under pressure.
    quiet_ns: Option<u64>,
}

/// State of the controller.
#[derive(Debug)]
pub(crate) struct Pressure {
    /// Bytes per second that the writer drains when there is enough to do, as far as was seen.
    capacity: f64,
    /// Bytes per second that it drains, averaged.
    drain: f64,
    /// There was more to drain than could be drained at the last look.
    busy: bool,
    /// Part of the capacity that all categories together may write; infinite without pressure.
    part: f64,
    /// Under overload: the least backlog so far, and when that was.
    least: Option<(f64, u64)>,
    /// Offered bytes per second and category, averaged.
    demand: Box<[f64; CATEGORIES_MAX]>,
    k: Box<[u8; CATEGORIES_MAX]>,
    last_ns: u64,
    /// When the budget was changed last, or overload was seen last.
    touched_ns: u64,
    /// When a pressure fell last.
    stepped_ns: u64,
    cause: Cause,
    episode: Option<Running>,
    changes: Vec<Change>,
}

impl Pressure {
    pub(crate) fn new(now_ns: u64) -> Self {
        Self {
            capacity: 0.0,
            drain: 0.0,
            busy: false,
            part: f64::INFINITY,
            least: None,
            demand: Box::new([0.0; CATEGORIES_MAX]),
            k: Box::new([0; CATEGORIES_MAX]),
            last_ns: now_ns,
            touched_ns: now_ns,
            stepped_ns: now_ns,
            cause: Cause::Relief,
            episode: None,
            changes: Vec::new(),
        }
    }

    /// Whether a tick at this time would do something.
    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.last_ns + TICK_NS
    }

    /// Looks at the load since the last tick and returns which categories change.
    pub(crate) fn tick(&mut self, load: &Load<'_>) -> &[Change] {
        self.changes.clear();
        let passed_ns = load.now_ns.saturating_sub(self.last_ns).max(1);
        self.last_ns = load.now_ns;
        self.learn(load, passed_ns);
        if let Some(demand) = load.demand {
            self.average(demand, passed_ns);
        }
        let total: f64 = self.demand.iter().sum();
        if let Some(cause) = overload(load) {
            self.cause = cause;
            self.touched_ns = load.now_ns;
            self.cut(load, total);
        } else {
            self.least = None;
            if self.is_active() {
                self.relieve(load, total);
            }
        }
        let share = self.share();
        for category in 0..CATEGORIES_MAX {
            self.set(category, share, load);
        }
        if self
            .changes
            .iter()
            .any(|change| change.cause == Cause::Relief)
        {
            self.stepped_ns = load.now_ns;
        }
        &self.changes
    }

    /// Whether there is a budget.
    pub(crate) fn is_active(&self) -> bool {
        self.part.is_finite()
    }

    /// Whether this fill is one that needs exact figures of the demand.
    pub(crate) fn is_close(fill: f64) -> bool {
        fill >= FILL_LOW
    }

    /// Begins or ends an episode; after each [`tick`](Self::tick).
    pub(crate) fn episode(&mut self) -> Option<Episode> {
        let k = self.k.iter().copied().max().unwrap_or(0);
        let now = self.last_ns;
        let Some(running) = &mut self.episode else {
            if k == 0 {
                return None;
            }
            self.episode = Some(Running {
                since_ns: now,
                k_max: k,
                quiet_ns: None,
            });
            let cause = if self.is_active() {
                self.cause
            } else {
                Cause::Disk
            };
            return Some(Episode::Started { k, cause });
        };
        running.k_max = running.k_max.max(k);
        if k > 0 {
            running.quiet_ns = None;
            return None;
        }
        let quiet_ns = *running.quiet_ns.get_or_insert(now);
        if now - quiet_ns < EPISODE_QUIET_NS {
            return None;
        }
        self.end_episode()
    }

    /// Ends the episode now, because the session ends.
    pub(crate) fn end_episode(&mut self) -> Option<Episode> {
        let running = self.episode.take()?;
        let end_ns = running.quiet_ns.unwrap_or(self.last_ns);
        Some(Episode::Ended {
            duration_ns: end_ns - running.since_ns,
            k_max: running.k_max,
        })
    }

    fn average(&mut self, offered: &[u64; CATEGORIES_MAX], passed_ns: u64) {
        let passed = passed_ns as f64;
        let part = 1.0 - (-passed / DEMAND_TAU_NS).exp();
        for (demand, bytes) in self.demand.iter_mut().zip(offered) {
            let rate = *bytes as f64 * 1e9 / passed;
            *demand += (rate - *demand) * part;
            if *demand < 1.0 {
                *demand = 0.0;
            }
        }
    }

    /// Learns what the writer can drain.
    fn learn(&mut self, load: &Load<'_>, passed_ns: u64) {
        if load.stalled {
            return;
        }
        let rate = load.drained as f64 * 1e9 / passed_ns as f64;
        let part = 1.0 - (-(passed_ns as f64) / DRAIN_TAU_NS).exp();
        let busy = load.fill >= FILL_LOW;
        if busy && !self.busy {
            // So far there was little to drain, and the writer slept most of the time; that says
            // nothing about what can be drained.
            let rate = load.drained as f64 * 1e9 / load.draining_ns.max(1) as f64;
            self.drain = self.drain.max(rate);
        } else {
            self.drain += (rate - self.drain) * part;
        }
        self.capacity = if busy {
            self.drain
        } else {
            self.capacity.max(self.drain)
        };
        self.busy = busy;
    }

    /// There is too much: lowers the budget.
    fn cut(&mut self, load: &Load<'_>, total: f64) {
        let wanted = total / self.capacity.max(BUDGET_MIN);
        if load.stalled {
            self.part = self.part.min(wanted) / 2.0;
            self.least = None;
            return;
        }
        self.part = self.part.min(DRAINING);
        match self.least {
            Some((least, since_ns)) if load.backlog > least * SHRUNK => {
                if load.now_ns >= since_ns + SHRINK_NS {
                    self.part = self.part.min(wanted) / 2.0;
                    self.least = Some((load.backlog, load.now_ns));
                }
            }
            _ => self.least = Some((load.backlog, load.now_ns)),
        }
    }

    /// Raises the budget when there was no overload for a while.
    fn relieve(&mut self, load: &Load<'_>, total: f64) {
        if load.fill >= FILL_LOW || load.now_ns < self.touched_ns + RELIEF_NS {
            return;
        }
        self.touched_ns = load.now_ns;
        self.part = if self.part < NEARLY {
            // After a stall nothing is known but what could be drained before it.
            (self.part * RELIEF_STEP).clamp(DRAINING, NEARLY)
        } else {
            self.part * PROBE_STEP
        };
        if self.budget() > total * ENOUGH {
            self.part = f64::INFINITY;
        }
    }

    /// Bytes per second that all categories together may write.
    fn budget(&self) -> f64 {
        (self.capacity.max(BUDGET_MIN) * self.part).max(BUDGET_MIN)
    }

    /// The largest share L so that categories that get at most L each stay within the budget.
    fn share(&self) -> f64 {
        if !self.is_active() {
            return f64::INFINITY;
        }
        let mut demands: Vec<f64> = self.demand.iter().copied().filter(|d| *d > 0.0).collect();
        demands.sort_by(f64::total_cmp);
        let mut left = self.budget();
        for (index, demand) in demands.iter().enumerate() {
            let share = left / (demands.len() - index) as f64;
            if *demand > share {
                return share;
            }
            left -= demand;
        }
        f64::INFINITY
    }

    /// Up at once, down step by step.
    fn set(&mut self, category: usize, share: f64, load: &Load<'_>) {
        let k = self.k[category];
        let demand = self.demand[category];
        let wanted = steps(demand, share).max(load.disk);
        let easy = steps(demand * MARGIN, share).max(load.disk);
        let next = if wanted > k {
            wanted
        } else if easy < k && load.now_ns >= self.stepped_ns + STEP_NS {
            k - 1
        } else {
            k
        };
        if next == k {
            return;
        }
        self.k[category] = next;
        let cause = match (next < k, load.disk == next) {
            (true, _) => Cause::Relief,
            (false, true) => Cause::Disk,
            (false, false) => self.cause,
        };
        self.changes.push(Change {
            category: category as u8,
            k: next,
            cause,
        });
    }
}

/// Why there is too much, if there is.
fn overload(load: &Load<'_>) -> Option<Cause> {
    if load.stalled && load.fill >= FILL_STALLED {
        Some(Cause::NoSegment)
    } else if load.fill >= FILL_HIGH {
        Some(Cause::RingFill)
    } else if load.lag_ns >= LAG_HIGH_NS && load.fill >= FILL_LOW {
        Some(Cause::DrainLag)
    } else {
        None
    }
}

/// How often the demand must be halved to fit into the share.
fn steps(demand: f64, share: f64) -> u8 {
    if demand <= share {
        return 0;
    }
    let steps = (demand / share).log2().ceil();
    steps.clamp(1.0, f64::from(PRESSURE_MAX)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Rings, a writer and its controller: bytes flow in as offered and sampled, and out as the
    /// capacity allows. Everything in bytes per millisecond.
    struct Plant {
        pressure: Pressure,
        now_ns: u64,
        capacity: f64,
        ring: f64,
        waiting: f64,
        dropped: f64,
        changes: usize,
        episodes: Vec<Episode>,
    }

    const RING: f64 = 512.0 * 1024.0;

    impl Plant {
        fn new(capacity: f64) -> Self {
            Self {
                pressure: Pressure::new(0),
                now_ns: 0,
                capacity,
                ring: RING,
                waiting: 0.0,
                dropped: 0.0,
                changes: 0,
                episodes: Vec::new(),
            }
        }

        fn k(&self, category: usize) -> u8 {
            self.pressure.k[category]
        }

        /// Runs for some milliseconds; returns the bytes per millisecond that were kept.
        fn run(&mut self, ms: u64, offered: &[(usize, f64)], stalled: bool, disk: u8) -> f64 {
            let mut kept_total = 0.0;
            for _ in 0..ms {
                self.now_ns += MS;
                let mut demand = [0; CATEGORIES_MAX];
                let kept = |category: usize, bytes: f64| {
                    bytes / f64::from(1_u32 << self.pressure.k[category])
                };
                let sum: f64 = offered.iter().map(|(c, bytes)| kept(*c, *bytes)).sum();
                let fits = (self.ring - self.waiting).min(sum);
                self.dropped += sum - fits;
                kept_total += fits;
                self.waiting += fits;
                let fill = self.waiting / self.ring;
                let drained = if stalled {
                    0.0
                } else {
                    self.waiting.min(self.capacity)
                };
                self.waiting -= drained;
                for (category, bytes) in offered {
                    demand[*category] = *bytes as u64;
                }
                let load = Load {
                    now_ns: self.now_ns,
                    draining_ns: (drained / self.capacity * MS as f64) as u64,
                    fill,
                    backlog: fill,
                    lag_ns: MS,
                    stalled,
                    disk,
                    drained: drained as u64,
                    demand: Some(&demand),
                };
                self.changes += self.pressure.tick(&load).len();
                self.episodes.extend(self.pressure.episode());
            }
            kept_total / ms as f64
        }
    }

    #[test]
    fn no_pressure_below_capacity() {
        let mut plant = Plant::new(1000.0);
        plant.run(1000, &[(5, 500.0), (6, 400.0)], false, 0);
        assert_eq!((plant.changes, plant.episodes.len()), (0, 0));
    }

    #[test]
    fn storm_is_cut_to_the_capacity_and_ends() {
        let mut plant = Plant::new(100_000.0);
        let storm = [(5, 1_000_000.0), (6, 20_000.0), (7, 100.0)];
        plant.run(100, &storm, false, 0);
        let kept = plant.run(2000, &storm, false, 0);
        assert!((20_000.0..=105_000.0).contains(&kept), "kept {kept}");
        assert!(plant.k(5) >= 3, "the noisy one pays: {}", plant.k(5));
        assert_eq!(plant.k(7), 0, "the quiet one does not");
        let dropped = plant.dropped;
        plant.run(1000, &storm, false, 0);
        let more = plant.dropped - dropped;
        assert!(more < 0.01 * 1_020_100.0 * 1000.0, "dropped {more}");
        plant.run(1000, &[(5, 1000.0)], false, 0);
        assert_eq!(plant.k(5), 0, "at rest within a second");
        plant.run(5000, &[(5, 1000.0)], false, 0);
        let [
            Episode::Started { .. },
            Episode::Ended { duration_ns, k_max },
        ] = plant.episodes[..]
        else {
            panic!("one episode, not {:?}", plant.episodes);
        };
        assert!(
            (3_000 * MS..4_200 * MS).contains(&duration_ns),
            "{duration_ns}"
        );
        assert!(k_max >= 4);
    }

    #[test]
    fn a_storm_after_a_rest_is_cut_to_what_can_be_drained() {
        let mut plant = Plant::new(400_000.0);
        plant.run(1, &[(5, 10.0)], false, 0);
        // The writer sleeps. What it drains in the first look after that is little for such a time.
        plant.now_ns += 250 * MS;
        let storm = [(5, 4_000_000.0)];
        plant.run(100, &storm, false, 0);
        let kept = plant.run(100, &storm, false, 0);
        assert!(kept > 0.2 * 400_000.0, "{kept} of 400,000 are used");
    }

    #[test]
    fn stalled_drain_is_answered_within_5_ms() {
        let mut plant = Plant::new(100_000.0);
        let load = [(5, 90_000.0), (6, 5.0)];
        plant.run(500, &load, false, 0);
        assert_eq!(plant.k(5), 0);
        plant.run(2, &load, true, 0);
        assert_eq!(
            plant.k(5),
            0,
            "rings that are a third full can wait for a segment"
        );
        plant.run(3, &load, true, 0);
        assert!(plant.k(5) >= 3, "{}", plant.k(5));
        plant.run(200, &load, true, 0);
        assert_eq!(plant.k(5), PRESSURE_MAX, "and it stays");
    }

    #[test]
    fn a_slow_disk_alone_takes_nothing_from_a_quiet_service() {
        let mut plant = Plant::new(100_000.0);
        plant.run(500, &[(5, 10.0)], false, 0);
        plant.run(1000, &[(5, 10.0)], true, 0);
        assert_eq!(plant.changes, 0);
    }

    #[test]
    fn equal_categories_share_equally_whoever_comes_first() {
        for order in [[1, 2, 3], [3, 2, 1]] {
            let mut plant = Plant::new(30_000.0);
            let storm = order.map(|category| (category, 100_000.0));
            plant.run(1000, &storm, false, 0);
            assert_eq!(plant.k(1), plant.k(2));
            assert_eq!(plant.k(2), plant.k(3));
        }
    }

    /// What makes a flood of changes and of half-empty segments: a pressure that swings.
    #[test]
    fn a_steady_storm_is_written_at_most_of_the_capacity() {
        let mut plant = Plant::new(16_000.0);
        let storm = [(5, 1_100_000.0), (6, 160_000.0), (7, 13.0)];
        plant.run(300, &storm, false, 0);
        assert_eq!(plant.k(7), 0);
        let (changes, mut kept) = (plant.changes, 0.0);
        for _ in 0..300 {
            kept += plant.run(10, &storm, false, 0) / 300.0;
            assert_eq!(plant.k(7), 0, "the quiet one never pays");
            assert!((4..=9).contains(&plant.k(5)), "{}", plant.k(5));
        }
        assert!(kept > 0.35 * 16_000.0, "{kept} of 16,000 are used");
        let changes = plant.changes - changes;
        assert!(changes < 100, "{changes} changes in 3 s");
    }

    #[test]
    fn after_a_stall_the_budget_is_what_could_be_drained_before() {
        let mut plant = Plant::new(100_000.0);
        let storm = [(5, 400_000.0)];
        plant.run(500, &storm, false, 0);
        plant.run(50, &storm, true, 0);
        assert_eq!(plant.k(5), PRESSURE_MAX);
        plant.run(500, &storm, false, 0);
        assert!((2..=4).contains(&plant.k(5)), "{}", plant.k(5));
    }

    #[test]
    fn disk_sets_a_floor_for_all() {
        let mut plant = Plant::new(1000.0);
        plant.run(10, &[(5, 10.0)], false, 3);
        assert_eq!((plant.k(5), plant.k(200)), (3, 3));
        plant.run(100, &[(5, 10.0)], false, 0);
        assert_eq!((plant.k(5), plant.k(200)), (0, 0));
    }

    #[test]
    fn changes_are_few() {
        let mut plant = Plant::new(100_000.0);
        plant.run(10_000, &[(5, 1_000_000.0), (6, 20_000.0)], false, 0);
        assert!(plant.changes < 1000, "{} changes in 10 s", plant.changes);
    }

    #[test]
    fn steps_halve_until_it_fits() {
        assert_eq!(steps(100.0, 100.0), 0);
        assert_eq!(steps(101.0, 100.0), 1);
        assert_eq!(steps(200.0, 100.0), 1);
        assert_eq!(steps(201.0, 100.0), 2);
        assert_eq!(steps(1e30, 1.0), PRESSURE_MAX);
        assert_eq!(steps(0.0, 0.0), 0);
    }
}
