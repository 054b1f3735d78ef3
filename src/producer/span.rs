//! Pushes of the two records of an operation: what was decided about the begin holds for the end.

use std::cell::Cell;
use std::time::Duration;

use super::offer::{Decided, Offer};
use super::{Log, Outcome};
use crate::gates::{GATE_OFF, GATE_POLICY, is_open, is_pressure};
use crate::record::{Extra, FLAG_CUT, Record};
use crate::sampling::KeyHash;

/// What became of the begin of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing was recorded, and nothing was counted: the end is not offered either.
    Off,
    /// It was kept with this weight id, and so is the end.
    Kept(u8),
    /// Left out by sampling: so is the end.
    LeftOut,
    /// A drop, or a category with a policy: the end is a record like any other.
    Open,
}

impl Log {
    /// A reading of the counter; `None` when nothing is recorded: then it costs one load.
    pub(crate) fn ticks<R: Record>(&self, record: &R) -> Option<u64> {
        if self.gate(record.schema().packed_ids()) == GATE_OFF {
            return None;
        }
        // 0 stands for no reading.
        Some(self.link.core()?.clock.ticks().max(1))
    }

    /// The time between two readings.
    pub(crate) fn between(&self, begin: u64, end: u64) -> Duration {
        let core = self.link.core();
        core.map_or(Duration::ZERO, |core| core.rate.between(begin, end))
    }

    /// Offers the begin of an operation with this reading of the counter. `key` stands for the
    /// operation where its category is sampled.
    pub(crate) fn push_begin<R: Record>(
        &self,
        record: R,
        [lead, extras]: [&[Extra<'_>]; 2],
        key: Option<KeyHash>,
        at: u64,
    ) -> Fate {
        let weight = Cell::new(0);
        let mut offer = Offer::new(record, extras, record.schema().packed_ids());
        (offer.lead, offer.key, offer.at) = (lead, key, at);
        offer.told = Some(&weight);
        match self.push_offer(offer) {
            Outcome::Disabled | Outcome::Closed => Fate::Off,
            Outcome::SampledOut => Fate::LeftOut,
            Outcome::Kept if !self.has_policy(&record) => Fate::Kept(weight.get()),
            Outcome::Kept | Outcome::Dropped(_) => Fate::Open,
        }
    }

    /// Offers the end of an operation. `is_cut`: one of its texts was cut, and may end in the
    /// middle of a secret.
    pub(crate) fn push_end<R: Record>(
        &self,
        record: R,
        [lead, extras]: [&[Extra<'_>]; 2],
        key: Option<KeyHash>,
        at: u64,
        (fate, is_cut): (Fate, bool),
    ) -> Outcome {
        let mut offer = Offer::new(record, extras, record.schema().packed_ids());
        (offer.lead, offer.key, offer.at) = (lead, key, at);
        if is_cut {
            offer.flags |= FLAG_CUT;
        }
        match fate {
            Fate::Off => return Outcome::Disabled,
            Fate::LeftOut => offer.decided = Decided::LeaveOut,
            Fate::Kept(weight) if !self.has_policy(&record) => {
                offer.decided = Decided::Keep;
                offer.weight = weight;
            }
            Fate::Kept(_) | Fate::Open => {}
        }
        self.push_offer(offer)
    }

    /// Offers a record that has the request id of the context as a field of its own. `is_cut`: as
    /// of an end.
    #[cfg(feature = "tower")]
    pub(crate) fn push_request<R: Record>(
        &self,
        record: R,
        extras: &[Extra<'_>],
        is_cut: bool,
    ) -> Outcome {
        let mut offer = Offer::new(record, extras, record.schema().packed_ids());
        offer.tells_request = true;
        if is_cut {
            offer.flags |= FLAG_CUT;
        }
        self.push_offer(offer)
    }

    /// Whether the category has a policy, or records are shed.
    fn has_policy(&self, record: &impl Record) -> bool {
        let gate = self.gate(record.schema().packed_ids());
        is_open(gate) && !is_pressure(gate) && gate & GATE_POLICY != 0
    }
}
