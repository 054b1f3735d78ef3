//! The byte buffer that lines are rendered into.
//!
//! Its bytes exist already (zeroed once, reused), so that appending is a bounds check and a copy;
//! short constants are copied at a fixed width, which needs no call.
#![expect(
    clippy::inline_always,
    reason = "a copy of known width is worth it only within its caller"
)]

/// Width of [`Fragment`]s that are copied at a fixed width.
const FRAGMENT_BYTES: usize = 32;
/// How far the buffer grows at least.
const GROW_BYTES: usize = 4096;
/// Longer texts are kept beside the content.
const LONG_TEXT_BYTES: usize = 256 << 10;

/// A growing byte buffer.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// `bytes[..len]` is the content.
    len: usize,
    /// Texts that are put in where the content is written, by their places; `None` where they have
    /// to be in the content.
    texts: Option<Vec<LongText>>,
}

/// A text that can become six times as long when it is escaped, and is not in memory like that.
#[derive(Debug)]
pub struct LongText {
    /// The content before it.
    pub at: usize,
    pub text: Vec<u8>,
    /// Whether it is JSON, and else stands between quotes.
    pub json: bool,
}

impl LineBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that keeps long texts beside its content.
    pub fn with_long_texts() -> Self {
        Self {
            texts: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// Length of the content, without long texts.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no content.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The content.
    #[inline]
    pub fn content(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Drops the content behind `len`.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        if let Some(texts) = &mut self.texts {
            texts.retain(|text| text.at <= len);
        }
    }

    /// The long texts in the content.
    pub fn long_texts(&self) -> &[LongText] {
        self.texts.as_deref().unwrap_or_default()
    }

    /// Whether a text of so many bytes is to be put in as a [`LongText`].
    pub fn is_long(&self, bytes: usize) -> bool {
        bytes > LONG_TEXT_BYTES && self.texts.is_some()
    }

    /// Appends a long text.
    pub fn put_long(&mut self, text: Vec<u8>, json: bool) {
        let at = self.len;
        if let Some(texts) = &mut self.texts {
            texts.push(LongText { at, text, json });
        }
    }

    /// Appends `bytes`.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        let place = self.place(bytes.len());
        copy_short(place, bytes);
        self.len += bytes.len();
    }

    /// Appends `N` bytes.
    #[inline(always)]
    pub fn put_array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put_prefix(bytes, N);
    }

    /// Appends the first `len` (at most `N`) of `bytes`; copies all of them.
    #[inline(always)]
    pub fn put_prefix<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        if let Some(place) = self.place(N).first_chunk_mut::<N>() {
            *place = *bytes;
        }
        self.len += len.min(N);
    }

    /// Appends one byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8) {
        self.put_array(&[byte]);
    }

    /// A pen at the end of the content.
    #[inline(always)]
    pub fn pen(&mut self) -> Pen<'_> {
        Pen {
            at: self.len,
            out: self,
        }
    }

    /// At least `count` bytes behind the content.
    #[inline(always)]
    fn place(&mut self, count: usize) -> &mut [u8] {
        if self.bytes.len() - self.len < count {
            self.grow(count);
        }
        &mut self.bytes[self.len..]
    }

    /// Puts `bytes` at `at`, which becomes the end of the content, where there is no room yet.
    #[cold]
    #[inline(never)]
    fn put_at(&mut self, at: usize, bytes: &[u8]) {
        self.len = at;
        let place = self.place(bytes.len());
        place[..bytes.len()].copy_from_slice(bytes);
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, count: usize) {
        let wanted = (self.len + count).max(self.bytes.len() * 2);
        self.bytes.resize(wanted.max(GROW_BYTES), 0);
    }

    /// Empties the buffer and gives memory back that one long line has taken.
    pub fn clear(&mut self, keep_bytes: usize) {
        self.len = 0;
        if let Some(texts) = self.texts.as_mut().filter(|texts| !texts.is_empty()) {
            *texts = Vec::new();
        }
        if self.bytes.len() > keep_bytes {
            self.bytes.truncate(keep_bytes);
            self.bytes.shrink_to_fit();
        }
    }
}

/// Writes behind the content of a buffer, which has what was written after
/// [`finish`](Self::finish). Its position is a local variable, so that one value does not wait
/// until the length of another is stored.
#[derive(Debug)]
pub struct Pen<'a> {
    out: &'a mut LineBuffer,
    at: usize,
}

impl Pen<'_> {
    /// Writes `bytes`.
    #[inline(always)]
    pub fn put(&mut self, bytes: &[u8]) {
        let place = self.out.bytes.get_mut(self.at..);
        match place.filter(|place| place.len() >= bytes.len()) {
            Some(place) => copy_short(place, bytes),
            None => self.out.put_at(self.at, bytes),
        }
        self.at += bytes.len();
    }

    /// Writes `N` bytes.
    #[inline(always)]
    pub fn put_array<const N: usize>(&mut self, bytes: &[u8; N]) {
        self.put_prefix(bytes, N);
    }

    /// Writes the first `len` (at most `N`) of `bytes`; copies all of them.
    #[inline(always)]
    pub fn put_prefix<const N: usize>(&mut self, bytes: &[u8; N], len: usize) {
        let place = self.out.bytes.get_mut(self.at..);
        match place.and_then(|place| place.first_chunk_mut::<N>()) {
            Some(place) => *place = *bytes,
            None => self.out.put_at(self.at, bytes),
        }
        self.at += len;
    }

    /// As [`put_prefix`](Self::put_prefix); `change` has the copy before it counts.
    #[inline(always)]
    pub fn put_changed<const N: usize>(
        &mut self,
        bytes: &[u8; N],
        len: usize,
        change: impl FnOnce(&mut [u8; N]),
    ) {
        let place = self.out.bytes.get_mut(self.at..);
        if let Some(place) = place.and_then(|place| place.first_chunk_mut::<N>()) {
            *place = *bytes;
            change(place);
        } else {
            let mut bytes = *bytes;
            change(&mut bytes);
            self.out.put_at(self.at, &bytes);
        }
        self.at += len;
    }

    /// Writes a constant.
    #[inline(always)]
    pub fn put_fragment(&mut self, fragment: &Fragment) {
        if fragment.long.is_empty() {
            self.put_prefix(&fragment.short, fragment.short_len as usize);
        } else {
            self.put(&fragment.long);
        }
    }

    /// Lets others append to the buffer.
    #[inline(always)]
    pub fn with<T>(&mut self, append: impl FnOnce(&mut LineBuffer) -> T) -> T {
        self.out.len = self.at;
        let result = append(self.out);
        self.at = self.out.len;
        result
    }

    /// What was written becomes content.
    #[inline(always)]
    pub fn finish(self) {
        self.out.len = self.at;
    }
}

/// `place[..bytes.len()] = bytes`, without a call for up to 32 bytes.
#[inline(always)]
fn copy_short(place: &mut [u8], bytes: &[u8]) {
    let count = bytes.len();
    let place = &mut place[..count];
    if count > 32 {
        place.copy_from_slice(bytes);
    } else if count >= 16 {
        copy_ends::<16>(place, bytes);
    } else if count >= 8 {
        copy_ends::<8>(place, bytes);
    } else if count >= 4 {
        copy_ends::<4>(place, bytes);
    } else {
        for (place, byte) in place.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }
}

/// Copies the first and the last `N` bytes, which may overlap; `N <= len <= 2 * N`.
#[inline(always)]
fn copy_ends<const N: usize>(place: &mut [u8], bytes: &[u8]) {
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) {
        if let Some(place) = place.first_chunk_mut::<N>() {
            *place = *head;
        }
        if let Some(place) = place.last_chunk_mut::<N>() {
            *place = *tail;
        }
    }
}

/// Constant text of a line.
#[derive(Clone, Debug)]
pub struct Fragment {
    short: [u8; FRAGMENT_BYTES],
    short_len: u32,
    /// The text when it is longer than `short`, else empty.
    long: Box<[u8]>,
}

impl Fragment {
    /// A constant of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut short = [0; FRAGMENT_BYTES];
        let mut long = Box::default();
        match short.get_mut(..bytes.len()) {
            Some(place) => place.copy_from_slice(bytes),
            None => long = bytes.into(),
        }
        let short_len = bytes.len().min(FRAGMENT_BYTES) as u32;
        Self {
            short,
            short_len,
            long,
        }
    }

    /// The bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        if self.long.is_empty() {
            &self.short[..self.short_len as usize]
        } else {
            &self.long
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_appended_whole() {
        let bytes: Vec<u8> = (1..=100).collect();
        for count in 0..=100 {
            let mut out = LineBuffer::new();
            out.put(b"<");
            out.put(&bytes[..count]);
            let mut pen = out.pen();
            pen.put_fragment(&Fragment::new(&bytes[..count]));
            pen.finish();
            out.push(b'>');
            let expected = [b"<", &bytes[..count], &bytes[..count], b">"].concat();
            assert_eq!(out.content(), expected, "{count}");
            assert_eq!(Fragment::new(&bytes[..count]).bytes(), &bytes[..count]);
        }
    }

    #[test]
    fn a_truncated_line_leaves_nothing_behind() {
        let mut out = LineBuffer::new();
        out.put(b"keep");
        out.put(&vec![b'x'; 200_000]);
        out.truncate(4);
        out.push(b'!');
        assert_eq!(out.content(), b"keep!");
        out.clear(1024);
        assert!(out.is_empty());
        assert!(out.bytes.len() <= 1024);
    }
}
