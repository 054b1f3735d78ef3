//! Short texts that own their bytes, without the heap.

use std::fmt;

use crate::record::cut_text;

/// A text of at most `N` (below 65,536) bytes; what is longer is cut between two characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inline<const N: usize> {
    bytes: u16,
    /// Something did not fit.
    cut: bool,
    text: [u8; N],
}

impl<const N: usize> Inline<N> {
    pub(crate) const EMPTY: Self = Self {
        bytes: 0,
        cut: false,
        text: [0; N],
    };

    pub(crate) fn new(text: &str) -> Self {
        let mut inline = Self::EMPTY;
        inline.push(text);
        inline
    }

    pub(crate) fn as_str(&self) -> &str {
        // Whole characters only. Not so, if a signal handler interrupted a copy: then it is empty.
        let text = self.text.get(..usize::from(self.bytes)).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends as much of `text` as fits; false when something is cut.
    pub(crate) fn push(&mut self, text: &str) -> bool {
        let begin = usize::from(self.bytes);
        let fits = cut_text(text, N - begin);
        self.text[begin..begin + fits.len()].copy_from_slice(fits.as_bytes());
        self.bytes += fits.len() as u16;
        let fitted = fits.len() == text.len();
        self.cut |= !fitted;
        fitted
    }

    /// Whether something did not fit.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }
}

/// An error once it is full.
impl<const N: usize> fmt::Write for Inline<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.push(text) {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl<const N: usize> fmt::Debug for Inline<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(Inline::<4>::new("abc").as_str(), "abc");
        assert_eq!(Inline::<4>::new("abc\u{e4}").as_str(), "abc");
        let mut text = Inline::<4>::new("ab");
        assert!(write!(text, "c{}", 12).is_err());
        assert_eq!(text.as_str(), "abc1");
        assert!(!text.push("e") && text.push(""));
    }
}
