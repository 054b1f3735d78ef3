//! Which producer's record comes next.

/// The next record of each producer, the first one on top. A key is (largest ticks of the producer
/// so far, ring, index of the cursor) in one number.
#[derive(Default)]
pub(super) struct Heap(Vec<u128>);

impl Heap {
    pub(super) fn push(&mut self, ticks: u64, ring: u32, cursor: u32) {
        let key = u128::from(ticks) << 64 | u128::from(ring) << 32 | u128::from(cursor);
        let mut place = self.0.len();
        self.0.push(key);
        while place > 0 && self.0[(place - 1) / 2] > key {
            self.0.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Ticks and index of the cursor of the first key.
    pub(super) fn first(&self) -> Option<(u64, usize)> {
        let key = self.0.first()?;
        Some(((key >> 64) as u64, *key as u32 as usize))
    }

    /// The largest ticks with which the ring of the first key comes before all others.
    pub(super) fn last_before_second(&self) -> u64 {
        let ring = |key: u128| (key >> 32) as u32;
        match (self.0.first(), self.0.iter().skip(1).take(2).min()) {
            (Some(first), Some(second)) => {
                let ticks = (second >> 64) as u64;
                // Not below 0: the first key has at most these ticks.
                ticks.saturating_sub(u64::from(ring(*first) > ring(*second)))
            }
            _ => u64::MAX,
        }
    }

    /// Gives the first key other ticks, or takes it away.
    pub(super) fn replace_first(&mut self, ticks: Option<u64>) {
        let Some(first) = self.0.first_mut() else {
            return;
        };
        match ticks {
            Some(ticks) => *first = u128::from(ticks) << 64 | u128::from(*first as u64),
            None => drop(self.0.swap_remove(0)),
        }
        let mut place = 0;
        while let Some(left) = self.0.get(2 * place + 1) {
            let right = self.0.get(2 * place + 2);
            let child = 2 * place + 1 + usize::from(right.is_some_and(|right| right < left));
            if self.0[child] >= self.0[place] {
                break;
            }
            self.0.swap(child, place);
            place = child;
        }
    }
}
