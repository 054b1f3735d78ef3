//! The two ways to go through the files: as fast as it goes, or at the pace of the timestamps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::lines::Lines;
use super::parse::{BadLine, parse_line};
use super::push::{Counts, Input, Pusher, line_text};
use crate::Session;

/// Bytes of lines that a thread takes from a file at a time.
const BATCH_BYTES: usize = 64 * 1024;

/// Pushes all lines as fast as `threads` threads can.
///
/// With at most as many threads as files, each file is read by one thread and its lines stay in
/// order. Further threads help with files that others read: then they take turns in reading
/// runs of lines, and lines of different runs may change places.
///
/// # Errors
/// When a file cannot be read to its end, or the writer has failed.
pub fn at_full_speed(
    session: &Session,
    inputs: &[Input],
    threads: usize,
    original_time: bool,
) -> Result<()> {
    // Opened by the first thread that comes, so that many files need few descriptors.
    let readers: Vec<Mutex<Option<Lines>>> = inputs.iter().map(|_| Mutex::default()).collect();
    let jobs = inputs.len().max(threads);
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        let mut pusher = Pusher::new(session, original_time);
        loop {
            // Relaxed: only hands out numbers.
            let job = next.fetch_add(1, Relaxed);
            if job >= jobs {
                return Ok(());
            }
            let index = job % inputs.len();
            push_file(&mut pusher, &inputs[index], &readers[index])?;
        }
    };
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let results = handles.into_iter().map(|handle| {
            handle
                .join()
                .unwrap_or_else(|_| Err(anyhow!("a replay thread has panicked")))
        });
        // All threads are joined before the first error is returned.
        results.collect::<Vec<_>>().into_iter().collect()
    })
}

fn push_file(pusher: &mut Pusher<'_>, input: &Input, reader: &Mutex<Option<Lines>>) -> Result<()> {
    let mut batch = Batch::default();
    while batch.fill(input, reader)? {
        let mut counts = Counts::default();
        let mut start = 0;
        for (number, end) in &batch.lines {
            match end {
                Ok(end) => {
                    counts.add(pusher.line(input, *number, &batch.bytes[start..*end])?);
                    start = *end;
                }
                Err(reason) => input.bad_line(*number, reason),
            }
        }
        input.add(counts);
    }
    Ok(())
}

/// Some lines of one file.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Number of each line, and where it ends in `bytes`, or why it is not there.
    lines: Vec<(u64, Result<usize, BadLine>)>,
    line: Vec<u8>,
}

impl Batch {
    /// Takes the next lines of the file; false at its end.
    fn fill(&mut self, input: &Input, reader: &Mutex<Option<Lines>>) -> Result<bool> {
        self.bytes.clear();
        self.lines.clear();
        let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = match &mut *reader {
            Some(lines) => lines,
            closed => closed.insert(open(&input.source.path)?),
        };
        let before = lines.bytes();
        let mut more = true;
        while more && self.bytes.len() < BATCH_BYTES {
            match lines
                .next_into(&mut self.line)
                .with_context(|| reading(input))?
            {
                None => more = false,
                Some(Err(reason)) => self.lines.push((lines.number(), Err(reason))),
                Some(Ok(())) => {
                    self.bytes.extend_from_slice(&self.line);
                    self.lines.push((lines.number(), Ok(self.bytes.len())));
                }
            }
        }
        input.progress(lines.bytes() - before);
        Ok(more || !self.lines.is_empty())
    }
}

/// Pushes all lines in the order of their timestamps, `factor` times as fast as they were
/// written, from one thread. A line without a timestamp follows the line before it.
///
/// # Errors
/// When a file cannot be read to its end, or the writer has failed.
pub fn paced(session: &Session, inputs: &[Input], factor: f64, original_time: bool) -> Result<()> {
    let mut pusher = Pusher::new(session, original_time);
    let mut streams = inputs
        .iter()
        .map(Stream::open)
        .collect::<Result<Vec<_>>>()?;
    let mut heap = BinaryHeap::new();
    let mut first: Option<Duration> = None;
    for (index, stream) in streams.iter_mut().enumerate() {
        if stream.advance()? {
            heap.push(Reverse((stream.time, index)));
            first = first.into_iter().chain(stream.time).min();
        }
    }
    let start = Instant::now();
    while let Some(Reverse((time, index))) = heap.pop() {
        if let Some(wait) = due(first, time, factor).checked_sub(start.elapsed()) {
            thread::sleep(wait);
        }
        let stream = &mut streams[index];
        let counts = pusher.line(stream.input, stream.lines.number(), &stream.line)?;
        stream.input.add(counts);
        if stream.advance()? {
            heap.push(Reverse((stream.time, index)));
        }
    }
    Ok(())
}

/// When a line of `time` is due, from the start of the replay; lines without a time are at once.
fn due(first: Option<Duration>, time: Option<Duration>, factor: f64) -> Duration {
    let since = match (first, time) {
        (Some(first), Some(time)) => time.saturating_sub(first),
        _ => Duration::ZERO,
    };
    Duration::try_from_secs_f64(since.as_secs_f64() / factor).unwrap_or(Duration::MAX)
}

/// One file with its next line.
struct Stream<'i> {
    input: &'i Input,
    lines: Lines,
    line: Vec<u8>,
    /// Time of the line; never goes back within a file, so that its lines stay in order.
    time: Option<Duration>,
}

impl<'i> Stream<'i> {
    fn open(input: &'i Input) -> Result<Self> {
        Ok(Self {
            input,
            lines: open(&input.source.path)?,
            line: Vec::new(),
            time: None,
        })
    }

    /// Goes to the next line that can be recorded; false at the end of the file.
    fn advance(&mut self) -> Result<bool> {
        loop {
            let before = self.lines.bytes();
            let next = self.lines.next_into(&mut self.line);
            self.input.progress(self.lines.bytes() - before);
            let parsed = match next.with_context(|| reading(self.input))? {
                None => return Ok(false),
                Some(Err(reason)) => Err(reason),
                Some(Ok(())) => match line_text(&self.line) {
                    None => continue,
                    Some(text) => text.and_then(parse_line),
                },
            };
            match parsed {
                Ok(parsed) => {
                    self.time = self.time.max(parsed.time());
                    return Ok(true);
                }
                Err(reason) => self.input.bad_line(self.lines.number(), &reason),
            }
        }
    }
}

fn open(path: &Path) -> Result<Lines> {
    Lines::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn reading(input: &Input) -> String {
    format!("cannot read {}", input.source.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_due_by_their_distance_from_the_first() {
        let seconds = |s| Some(Duration::from_secs(s));
        assert_eq!(
            due(seconds(100), seconds(130), 10.0),
            Duration::from_secs(3)
        );
        assert_eq!(due(seconds(100), seconds(90), 1.0), Duration::ZERO);
        assert_eq!(due(None, None, 1.0), Duration::ZERO);
        assert_eq!(due(seconds(1), None, 1.0), Duration::ZERO);
        assert_eq!(due(seconds(0), seconds(u64::MAX), 1e-9), Duration::MAX);
    }
}
