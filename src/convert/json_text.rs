//! Whether a text is JSON, without recursion and without the heap.
//!
//! Stricter than the grammar in one point: an escaped surrogate must be half of a pair, because
//! readers refuse lines with a lone one.

/// The deepest nesting of a value. With the line around it 127: what common parsers read.
pub const DEPTH_MAX: u32 = 126;

/// What a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonText<'a> {
    /// One JSON value.
    Valid(&'a str),
    /// Something else, or nested deeper than [`DEPTH_MAX`].
    Invalid,
}

/// Checks `bytes`.
pub fn json_text(bytes: &[u8]) -> JsonText<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_json(bytes) => JsonText::Valid(text),
        _ => JsonText::Invalid,
    }
}

/// Whether `bytes` is a JSON number and nothing else.
pub fn is_json_number(bytes: &[u8]) -> bool {
    let mut text = Text { rest: bytes };
    text.number().is_some() && text.rest.is_empty()
}

fn is_json(bytes: &[u8]) -> bool {
    let mut text = Text { rest: bytes };
    text.document().is_some() && text.rest.is_empty()
}

/// Takes tokens from the front; `None` where there is none of the kind.
struct Text<'a> {
    rest: &'a [u8],
}

/// The containers around a place: one bit each, 1 = object, the innermost lowest.
#[derive(Default)]
struct Stack {
    objects: u128,
    depth: u32,
}

impl Stack {
    fn push(&mut self, object: bool) -> Option<()> {
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Some(())
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.objects >>= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

impl Text<'_> {
    /// A value with white space around it.
    fn document(&mut self) -> Option<()> {
        let mut stack = Stack::default();
        loop {
            self.value(&mut stack)?;
            // Behind a value: close what ends here, then the next value or the end.
            loop {
                self.space();
                if stack.depth == 0 {
                    return Some(());
                }
                match (self.take()?, stack.in_object()) {
                    (b',', true) => {
                        self.key()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => stack.pop(),
                    _ => return None,
                }
            }
        }
    }

    /// A scalar or an empty container; of another container all up to its first scalar.
    fn value(&mut self, stack: &mut Stack) -> Option<()> {
        loop {
            self.space();
            match self.peek()? {
                b'{' => {
                    self.take();
                    stack.push(true)?;
                    self.space();
                    if self.peek()? == b'}' {
                        self.take();
                        stack.pop();
                        return Some(());
                    }
                    self.key()?;
                }
                b'[' => {
                    self.take();
                    stack.push(false)?;
                    self.space();
                    if self.peek()? == b']' {
                        self.take();
                        stack.pop();
                        return Some(());
                    }
                }
                b'"' => return self.string(),
                b't' => return self.word(b"true"),
                b'f' => return self.word(b"false"),
                b'n' => return self.word(b"null"),
                _ => return self.number(),
            }
        }
    }

    /// A member name and its colon.
    fn key(&mut self) -> Option<()> {
        self.space();
        self.string()?;
        self.space();
        (self.take()? == b':').then_some(())
    }

    fn string(&mut self) -> Option<()> {
        self.word(b"\"")?;
        loop {
            match self.take()? {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.take()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex4()? {
                0xd800..=0xdbff => {
                    self.word(b"\\u")?;
                    matches!(self.hex4()?, 0xdc00..=0xdfff).then_some(())
                }
                0xdc00..=0xdfff => None,
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex4(&mut self) -> Option<u32> {
        let mut code = 0;
        for _ in 0..4 {
            code = code << 4 | char::from(self.take()?).to_digit(16)?;
        }
        Some(code)
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.take();
        }
        match self.take()? {
            b'0' => {}
            b'1'..=b'9' => self.skip_digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.take();
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.take();
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.take();
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        self.take()?.is_ascii_digit().then_some(())?;
        self.skip_digits();
        Some(())
    }

    fn skip_digits(&mut self) {
        let other = self.rest.iter().position(|byte| !byte.is_ascii_digit());
        self.rest = self.rest.split_at(other.unwrap_or(self.rest.len())).1;
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn space(&mut self) {
        while let [b' ' | b'\t' | b'\n' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }
}
