//! The writer thread: drains all rings into segments.

mod abandon;
mod allowance;
mod append;
mod balance;
mod clock;
mod control;
mod drain;
mod durability;
mod durations;
mod ending;
mod entries;
mod failed;
mod helper;
mod idle;
mod live;
mod lost;
mod notice;
mod own;
mod pace;
mod pressure;
mod reserve;
mod scan;
mod segments;
mod space;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::core::Core;
use crate::ledger::{DropReason, INTERRUPTED, Ledger, OFFERED, WRITTEN};
use crate::record::{CATEGORY_SESSION, SchemaDef, SchemaIds, category_name};
use crate::ring::{Consumer, SpillReader};
use crate::sys::affinity::take_short_turns;
use crate::sys::process::precise_timers;
use crate::sys::report::say;
use crate::wake::become_engine;

pub(crate) use control::{Control, Request, Seen};
pub(crate) use durability::{SegmentEvent, SessionDisk, Syncer};
pub(crate) use durations::OperationEnd;
pub(crate) use helper::{Helper, HelperHandle, space};
pub(crate) use own::{EndRecord, OwnRecord};
pub(crate) use segments::{Segments, segment_bytes_min};
pub(crate) use space::SpaceBounds;

use balance::Balance;
use clock::ClockSchedule;
use helper::note;
use idle::{Enough, Idle, WAIT_CLOSE};
use lost::Lost;
use pace::Pace;
use scan::Scanner;

/// Pause of a writer that has no segment to write to. With the wait for the segment it is the time
/// between two looks at the rings, which has to be short against what a ring takes to fill.
const STALL_PAUSE: Duration = Duration::from_millis(1);
/// Room for the news of the session about itself: at most 4,096 changes, and notices with a
/// ledger.
const NEWS_BYTES: usize = 384 << 10;
/// How long the last drain waits for a segment without getting on.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// State of the writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    core: Arc<Core>,
    control: Arc<Control>,
    segments: Segments,
    /// One per ring that was ever used.
    consumers: Vec<Consumer>,
    scanner: Scanner,
    /// Up to where the rings are drained in this pass.
    ends: Vec<u64>,
    /// Spilled records that were collected and not written yet.
    spilled: SpillReader,
    /// Records of threads without a ring that were written: the position of their stream.
    no_ring_pos: u64,
    /// Where spilled records are put together for a block.
    batch: Vec<u8>,
    /// Standard error was told that `Always` records were lost.
    told_loss: bool,
    /// Position in the stream of the writer's own records, ring 0.
    own_pos: u64,
    /// Ticks of the writer's last own record.
    own_ticks: u64,
    /// The pass left records in a ring because there was no segment for them.
    stalled: bool,
    /// The requests that were answered last.
    answered: Seen,
    /// Bytes in a ring were no records.
    damaged: bool,
    lost: Lost,
    /// Ids of rings whose next block comes after records that were shed.
    shed_rings: BTreeSet<u32>,
    /// Lost segments that `shed_rings` knows of.
    rescues: u64,
    clock: ClockSchedule,
    balance: Balance,
    pace: Pace,
    wait_max: Duration,
    faults: Vec<String>,
}

/// What the writer leaves behind.
#[derive(Debug)]
pub(crate) struct WriterEnd {
    pub(crate) ledger: Ledger,
    pub(crate) segment_bytes: u64,
    /// The session has its last seal.
    pub(crate) sealed: bool,
    pub(crate) faults: Vec<String>,
}

impl Writer {
    /// `wait_max` is the longest wait between two looks at the rings.
    pub(crate) fn new(
        core: Arc<Core>,
        control: Arc<Control>,
        segments: Segments,
        wait_max: Duration,
    ) -> Self {
        let keep_of = {
            let core = Arc::clone(&core);
            move |ids: SchemaIds, def: &SchemaDef| core.keep_class(ids.category, def.keep)
        };
        let scanner = Scanner::new(Box::new(keep_of), core.policies.rates());
        Self {
            balance: Balance::new(Arc::clone(&core)),
            core,
            control,
            segments,
            consumers: Vec::new(),
            scanner,
            ends: Vec::new(),
            spilled: SpillReader::default(),
            no_ring_pos: 0,
            batch: Vec::new(),
            told_loss: false,
            own_pos: 0,
            own_ticks: 0,
            stalled: false,
            answered: Seen::default(),
            damaged: false,
            lost: Lost::default(),
            shed_rings: BTreeSet::new(),
            rescues: 0,
            clock: ClockSchedule::new(),
            pace: Pace::new(),
            wait_max,
            faults: Vec::new(),
        }
    }

    /// Drains until it is told to stop, then writes what is left and the last record.
    pub(crate) fn run(mut self, start: &dyn OwnRecord, end: EndRecord<'_>) -> WriterEnd {
        become_engine();
        precise_timers();
        take_short_turns();
        self.write_own(start);
        let mut idle = Idle::new();
        loop {
            self.control.rest();
            let seen = self.control.seen();
            self.stalled = false;
            let begun = self.core.clock.ticks();
            let drained = self.drain_all();
            self.tell_live(begun);
            self.balance();
            self.tell_loss();
            self.clock_due();
            self.segments.leave_failed();
            self.tell_live(begun);
            self.answer(seen);
            if seen.stop {
                break;
            }
            if self.stalled {
                // There is work, and nowhere to put it: looking again at once would not help.
                std::thread::park_timeout(STALL_PAUSE);
                continue;
            }
            if self.segments.is_shedding() {
                // Nobody else notices that there is space again.
                idle.stay_awake();
            }
            let (control, core) = (Arc::clone(&self.control), Arc::clone(&self.core));
            let has_work = |enough| control.seen() != seen || self.has_work(&core, enough);
            idle.wait(drained, self.wait_max(), &core, has_work);
        }
        self.finish(end)
    }

    /// The longest wait now: a pressure is to end soon after the load that it is for.
    fn wait_max(&self) -> Duration {
        if self.balance.is_active() {
            self.wait_max.min(WAIT_CLOSE)
        } else {
            self.wait_max
        }
    }

    /// Adapts the pressure to the load and writes down what changed.
    fn balance(&mut self) {
        self.look();
        self.segments.relieve();
        self.segments.look_at_bound(self.scanner.written().lines);
        // Without room for them they wait: the reserve is not for them.
        if self.balance.has_news() && !self.stalled && self.segments.ensure(NEWS_BYTES) {
            self.write_news();
        }
    }

    /// Tells the controller how full the rings are now.
    fn look_at_rings(&mut self) {
        let mut all = (0, 0);
        for index in 0..self.consumers.len() {
            let ring = self.core.storage.slot(index as u32).ring();
            // Relaxed: the writer's own counter, and a look at what the producer has committed. The
            // one in the ring is zero when its page was lost, the other while the ring is drained.
            let stored = ring.header.read_pos.load(Relaxed);
            let read_pos = self.consumers[index].read_pos().max(stored);
            let waiting = ring.header.write_pos.load(Relaxed).saturating_sub(read_pos);
            self.balance.ring(waiting, ring.buffer.capacity());
            all = (all.0 + waiting, all.1 + ring.buffer.capacity());
        }
        self.balance.rings(all.0, all.1);
    }

    /// Lets the controller look at the load, if it is time.
    fn look(&mut self) {
        if self.balance.is_due() {
            self.look_at_rings();
        }
        let space = &self.core.space;
        let written = self.scanner.written();
        space.recorded.store(written.recorded, Relaxed);
        space.lines.store(written.lines, Relaxed);
        space
            .always_recorded
            .store(written.always_recorded, Relaxed);
        space.always_lines.store(written.always_lines, Relaxed);
        let disk = space.pressure.load(Relaxed);
        self.balance.tick(&mut self.scanner, self.stalled, disk);
    }

    fn write_news(&mut self) {
        let (entries, count) = self.balance.take_changes();
        if count > 0 && !self.segments.write_entries(&entries, count) {
            note(
                &mut self.faults,
                "changes of pressure could not be written".to_owned(),
            );
        }
        for notice in self.balance.take_notices() {
            notice.write(&mut |record| self.write_own(record));
        }
    }

    /// Whether somebody waits for the writer, or a ring holds `enough`.
    fn has_work(&self, core: &Core, enough: Enough) -> bool {
        let spill = &core.storage.spill;
        if !self.spilled.is_empty() || spill.has_committed() || self.has_lost_pages(core) {
            return true;
        }
        let rings = (0..core.storage.used()).map(|index| core.storage.slot(index).ring());
        rings.enumerate().any(|(index, ring)| {
            let read_pos = self.consumers.get(index).map_or(0, Consumer::read_pos);
            let waiting = ring.header.write_pos.load(Relaxed).saturating_sub(read_pos);
            enough.is_in(waiting, ring.buffer.capacity())
        })
    }

    /// Says once that records which must always be kept are being lost.
    fn tell_loss(&mut self) {
        if self.told_loss || self.core.losses.lost() == 0 {
            return;
        }
        self.told_loss = true;
        let what = self.core.losses.sentence().unwrap_or_default();
        say(&format!("{what} so far; session_end counts them all"));
    }

    /// Answers requests that came since the last answer.
    fn answer(&mut self, seen: Seen) {
        let asked = seen.flushes > self.answered.flushes || seen.syncs > self.answered.syncs;
        if !asked {
            return;
        }
        if self.stalled {
            // Without trouble the next segment is nearly ready, and the next pass answers.
            if let Some(what) = self.segments.trouble.clone() {
                self.answered = seen;
                self.control.fail(seen, what);
            }
            return;
        }
        let sync = (seen.syncs > self.answered.syncs).then(|| {
            let result = self.segments.sync().map_err(|error| error.to_string());
            if let Err(what) = &result {
                note(&mut self.faults, what.clone());
            }
            result
        });
        self.answered = seen;
        self.control.answer(seen, sync);
    }

    /// The last drain: everything in the rings and the spill, the last clock point, the last
    /// record, the seal.
    fn finish(mut self, end: EndRecord<'_>) -> WriterEnd {
        let mut deadline = Instant::now() + LAST_WAIT;
        while self.has_work(&Arc::clone(&self.core), Enough::Any) && Instant::now() < deadline {
            self.stalled = false;
            if self.drain_all().bytes > 0 {
                deadline = Instant::now() + LAST_WAIT;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.segments.begin_end();
        self.abandon_rest();
        fail_point!("close.drained");
        self.balance.end();
        self.write_news();
        self.tell_loss();
        if self.damaged {
            self.core.count_missing_as(DropReason::Damaged.counter());
        } else if self.control.stuck() > 0 {
            self.core.count_missing_as(INTERRUPTED);
        }
        self.end_lost(&Arc::clone(&self.core));
        self.write_durations();
        fail_point!("close.durations");
        self.write_clock(self.core.clock_point());
        self.segments.audit();
        let mut ledger = self.core.ledger();
        let session = category_name(CATEGORY_SESSION).unwrap_or("session");
        let account = ledger.categories.entry(session.to_owned()).or_default();
        account.counters[OFFERED] += 1;
        account.counters[WRITTEN] += 1;
        end(&ledger, &mut |record| self.write_own(record));
        self.segments.look_at_file();
        self.segments.rescue_if_lost(true);
        self.tell_live(u64::MAX);
        fail_point!("close.ended");
        let ledger = self.core.ledger();
        let segment_bytes = self.segments.total_bytes();
        let mut faults = self.faults;
        let (sealed, others) = self.segments.finish();
        for fault in others {
            note(&mut faults, fault);
        }
        WriterEnd {
            ledger,
            segment_bytes,
            sealed,
            faults,
        }
    }
}
