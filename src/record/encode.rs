//! Writing the bytes of a record into the place that was reserved for it.

/// Where the variable area of a record is written.
pub trait Sink {
    /// Appends `bytes`, or as many of them as fit: a `Record` that announces too few bytes loses
    /// its tail, it cannot damage another record.
    fn put(&mut self, bytes: &[u8]);
}

/// A contiguous place: the usual case, kept as small as it can be.
#[derive(Debug)]
pub struct Place<'a> {
    rest: &'a mut [u8],
}

impl<'a> Place<'a> {
    /// A cursor at the start of `place`.
    #[inline(always)]
    pub fn new(place: &'a mut [u8]) -> Self {
        Self { rest: place }
    }
}

impl Sink for Place<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if bytes.len() <= self.rest.len() {
            let (place, rest) = std::mem::take(&mut self.rest).split_at_mut(bytes.len());
            copy(place, bytes);
            self.rest = rest;
        } else {
            put_what_fits(std::mem::take(&mut self.rest), bytes);
        }
    }
}

#[cold]
#[inline(never)]
fn put_what_fits(rest: &mut [u8], bytes: &[u8]) {
    rest.copy_from_slice(&bytes[..rest.len()]);
}

/// A place that may consist of pieces, and can be asked what is left of it.
pub struct Variable<'a> {
    rest: &'a mut [u8],
    /// Where to go on when `rest` is full: the chunks of a large record.
    chunks: Option<&'a mut dyn ChunkSource<'a>>,
}

/// Hands out the pieces of a place that is not contiguous.
pub trait ChunkSource<'a> {
    /// The next piece; `None` at the end.
    fn next_chunk(&mut self) -> Option<&'a mut [u8]>;
}

impl std::fmt::Debug for Variable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variable")
            .field("rest", &self.rest.len())
            .finish_non_exhaustive()
    }
}

impl<'a> Variable<'a> {
    /// A cursor over `place`.
    #[inline]
    pub fn new(place: &'a mut [u8]) -> Self {
        Self {
            rest: place,
            chunks: None,
        }
    }

    /// A cursor over the pieces of `chunks`.
    pub(crate) fn chained(chunks: &'a mut dyn ChunkSource<'a>) -> Self {
        Self {
            rest: &mut [],
            chunks: Some(chunks),
        }
    }

    /// Bytes left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Appends `bytes`, or as many of them as fit.
    pub fn put(&mut self, mut bytes: &[u8]) {
        loop {
            let count = bytes.len().min(self.rest.len());
            let (place, rest) = std::mem::take(&mut self.rest).split_at_mut(count);
            place.copy_from_slice(&bytes[..count]);
            self.rest = rest;
            bytes = &bytes[count..];
            if bytes.is_empty() {
                return;
            }
            match self.chunks.as_mut().and_then(|chunks| chunks.next_chunk()) {
                Some(chunk) => self.rest = chunk,
                None => return,
            }
        }
    }

    /// Sets what is left to zero.
    #[inline]
    pub fn fill_zero(self) {
        self.rest.fill(0);
    }
}

impl Sink for Variable<'_> {
    fn put(&mut self, bytes: &[u8]) {
        Variable::put(self, bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// `copy_from_slice` without a call for short texts, which most are: two overlapping moves.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    let count = from.len();
    if count > 16 {
        to.copy_from_slice(from);
    } else if count >= 8 {
        copy_ends::<8>(to, from);
    } else if count >= 4 {
        copy_ends::<4>(to, from);
    } else if count >= 2 {
        copy_ends::<2>(to, from);
    } else {
        copy_ends::<1>(to, from);
    }
}

/// Copies the first and the last `N` bytes, which may overlap; `N <= len <= 2 * N`.
#[inline(always)]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(head), Some(tail)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) {
        let (head, tail) = (*head, *tail);
        if let Some(to) = to.first_chunk_mut::<N>() {
            *to = head;
        }
        if let Some(to) = to.last_chunk_mut::<N>() {
            *to = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_copied_whole() {
        let from: Vec<u8> = (1..=40).collect();
        for count in 0..=40 {
            let mut place = [0; 48];
            let mut out = Place::new(&mut place);
            out.put(&from[..count]);
            assert_eq!(out.rest.len(), 48 - count);
            assert_eq!(place[..count], from[..count]);
            assert!(
                place[count..].iter().all(|byte| *byte == 0),
                "length {count}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut place = [0; 4];
        let mut out = Variable::new(&mut place);
        out.put(&[1, 2, 3]);
        out.put(&[4, 5, 6]);
        assert_eq!(out.remaining(), 0);
        assert_eq!(place, [1, 2, 3, 4]);
    }
}
