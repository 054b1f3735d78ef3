//! What goes into rendering and is counted by it.

use std::sync::Arc;

use super::plan::Context;

/// Records of one block whose lines follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Index of the bytes that hold them.
    pub bytes: u32,
    /// Index of the body of the last of them, if that is a LARGE one and its body is known.
    pub body: Option<u32>,
    /// Where they start and end.
    pub start: u32,
    pub end: u32,
    /// The largest ticks of their producer before them: no record has an earlier time.
    pub ticks: u64,
}

/// Records in the order of their lines.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Blocks.
    pub bytes: Vec<Arc<Vec<u8>>>,
    pub runs: Vec<Run>,
    /// Records in them.
    pub records: usize,
    /// Large blocks with a header, cut behind the body.
    pub bodies: Vec<Vec<u8>>,
    /// Runs that are done.
    pub done: usize,
}

impl Batch {
    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.runs.clear();
        self.bodies.clear();
        (self.records, self.done) = (0, 0);
    }
}

/// What rendering has counted for one category.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub lines: u64,
    pub damaged: u64,
    /// Lines by weight id, but for id 0. As long as needed.
    pub weighted: Vec<u64>,
}

/// What rendering has counted.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// By category.
    pub counts: Vec<Counts>,
    /// Damaged records whose category is not known.
    pub damaged_unknown: u64,
    /// Extra fields that were left out because their names were taken too often.
    pub extras_left_out: u64,
    /// Secrets that were replaced in the lines.
    pub redacted: u64,
}

impl Totals {
    pub(super) fn new(categories: usize) -> Self {
        Self {
            counts: vec![Counts::default(); categories],
            ..Self::default()
        }
    }

    /// Adds those of another thread.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(&other.counts) {
            sum.add(more);
        }
        self.damaged_unknown += other.damaged_unknown;
        self.extras_left_out += other.extras_left_out;
        self.redacted += other.redacted;
    }
}

impl Counts {
    #[cold]
    pub(super) fn weigh(&mut self, id: u8) {
        let id = usize::from(id);
        if self.weighted.len() <= id {
            self.weighted.resize(id + 1, 0);
        }
        if let Some(count) = self.weighted.get_mut(id) {
            *count += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        self.lines += other.lines;
        self.damaged += other.damaged;
        let length = self.weighted.len().max(other.weighted.len());
        self.weighted.resize(length, 0);
        for (sum, more) in self.weighted.iter_mut().zip(&other.weighted) {
            *sum += more;
        }
    }

    /// How many records the lines stand for.
    pub(super) fn estimated(&self, context: &Context) -> f64 {
        let weighted = self.weighted.iter().enumerate();
        let beyond = weighted.map(|(id, lines)| {
            // Known, or the records would be damaged.
            let weight = context.registry.weight(id as u8).unwrap_or(1.0);
            *lines as f64 * (weight - 1.0)
        });
        self.lines as f64 + beyond.sum::<f64>()
    }
}
