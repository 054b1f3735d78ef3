//! Trace and span ids, and the header `traceparent` that carries them (W3C Trace Context).

use std::fmt;

use super::random;

/// Length of a header of version 00, and the least of later versions.
const HEADER_BYTES: usize = 55;
/// The only flag of version 00 that is passed on.
const SAMPLED: u8 = 1;

/// Id of a trace: 16 bytes, not all zero; 32 small hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Id of a span: 8 bytes, not all zero; 16 small hexadecimal digits as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

macro_rules! id {
    ($name:ident $bytes:literal $digits:literal) => {
        impl $name {
            /// The id with these bytes; `None` when all are zero.
            pub const fn new(bytes: [u8; $bytes]) -> Option<Self> {
                let mut at = 0;
                while at < $bytes {
                    if bytes[at] != 0 {
                        return Some(Self(bytes));
                    }
                    at += 1;
                }
                None
            }

            /// The id in this text: exactly as many small hexadecimal digits as it has, not all 0.
            pub fn parse(text: &str) -> Option<Self> {
                let mut bytes = [0; $bytes];
                let (pairs, rest) = text.as_bytes().as_chunks::<2>();
                if pairs.len() != $bytes || !rest.is_empty() {
                    return None;
                }
                for (byte, pair) in bytes.iter_mut().zip(pairs) {
                    *byte = hex_byte(*pair)?;
                }
                Self::new(bytes)
            }

            /// A random id. Not for secrets.
            pub fn random() -> Self {
                loop {
                    let mut bytes = [0; $bytes];
                    for part in bytes.as_chunks_mut::<8>().0 {
                        *part = random::next().to_le_bytes();
                    }
                    if let Some(id) = Self::new(bytes) {
                        return id;
                    }
                }
            }

            /// Its bytes.
            pub const fn bytes(self) -> [u8; $bytes] {
                self.0
            }

            /// Its digits.
            pub fn digits(self) -> [u8; $digits] {
                let mut digits = [0; $digits];
                for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
                    *pair = hex_digits(byte);
                }
                digits
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

id!(TraceId 16 32);
id!(SpanId 8 16);

/// What the header `traceparent` says: a trace, and a span of it.
///
/// ```
/// use stormlog::context::TraceParent;
///
/// let header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let parent = TraceParent::parse(header).unwrap();
/// assert!(parent.sampled);
/// assert_eq!(parent.to_string(), header);
/// assert_eq!(TraceParent::parse(&header.to_uppercase()), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace_id: TraceId,
    /// The span of the sender, `parent-id` in the header.
    pub span_id: SpanId,
    /// Whether the sender may have recorded the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Reads a header, strictly by the specification: small digits only, no id of zeros, version
    /// `ff` refused, exactly 55 characters in version 00. A later version may go on behind them
    /// with a `-` and whatever else, which is ignored.
    ///
    /// `None` when it is not one: begin a new trace then.
    pub fn parse(header: &str) -> Option<Self> {
        let bytes = header.as_bytes();
        let (head, rest) = bytes.split_at_checked(HEADER_BYTES)?;
        let text = std::str::from_utf8(head).ok()?;
        let version = hex_byte(*head.first_chunk()?)?;
        let may_go_on = version > 0 && rest.first() == Some(&b'-');
        if version == 0xff || !(rest.is_empty() || may_go_on) {
            return None;
        }
        let mut parts = text.split('-').skip(1);
        let (trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let [high, low] = *flags.as_bytes() else {
            return None;
        };
        Some(Self {
            trace_id: TraceId::parse(trace_id)?,
            span_id: SpanId::parse(span_id)?,
            sampled: hex_byte([high, low])? & SAMPLED != 0,
        })
    }

    /// A new trace with a first span, sampled.
    pub fn random() -> Self {
        Self {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            sampled: true,
        }
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self {
            span_id: SpanId::random(),
            ..self
        }
    }
}

/// The header, in version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id, span_id, ..
        } = self;
        write!(f, "00-{trace_id}-{span_id}-{:02x}", u8::from(self.sampled))
    }
}

/// The byte that two small hexadecimal digits stand for.
fn hex_byte([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn hex_digits(byte: u8) -> [u8; 2] {
    let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
    [digit(byte >> 4), digit(byte & 15)]
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_header_comes_back_as_it_was() {
        let parent = TraceParent::parse(HEADER).unwrap();
        assert_eq!(parent.to_string(), HEADER);
        assert_eq!(
            parent.trace_id.digits(),
            *b"4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(parent.span_id.digits(), *b"00f067aa0ba902b7");
        let not_sampled = HEADER.replace("-01", "-00");
        assert!(!TraceParent::parse(&not_sampled).unwrap().sampled);
        assert_eq!(
            TraceParent::parse(&not_sampled).unwrap().to_string(),
            not_sampled
        );
    }

    /// Other flags have no meaning yet and must not be passed on.
    #[test]
    fn of_the_flags_the_sampled_one_is_passed_on() {
        for (flags, passed) in [("ff", "01"), ("fe", "00"), ("03", "01"), ("02", "00")] {
            let header = HEADER.replace("-01", &format!("-{flags}"));
            let told = TraceParent::parse(&header).unwrap().to_string();
            assert!(told.ends_with(passed), "{flags}: {told}");
        }
    }

    #[test]
    fn later_versions_may_go_on() {
        let later = |from: &str, tail: &str| format!("{from}{}{tail}", &HEADER[2..]);
        for good in [
            later("01", ""),
            later("01", "-"),
            later("cc", "-what-the-future-will-be-like"),
            later("fe", "-\u{e4}"),
        ] {
            let parent = TraceParent::parse(&good).expect(&good);
            assert_eq!(parent.to_string(), HEADER, "written as version 00");
        }
        for bad in [
            later("00", "-"),
            later("00", "-extra"),
            later("01", "x"),
            later("01", ".extra"),
            later("ff", ""),
            later("ff", "-extra"),
        ] {
            assert_eq!(TraceParent::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn what_the_specification_refuses_is_refused() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-04bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0X-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7--1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba9\u{e4}b7-0",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn random_ids_differ_between_and_within_threads() {
        let made = || (0..100).map(|_| TraceId::random()).collect::<Vec<_>>();
        let mut ids = made();
        let others: Vec<_> = (0..4).map(|_| std::thread::spawn(made)).collect();
        ids.extend(others.into_iter().flat_map(|other| other.join().unwrap()));
        let count = ids.len();
        let unique: std::collections::HashSet<_> = ids.into_iter().collect();
        assert_eq!(unique.len(), count);
        let parent = TraceParent::random();
        assert_eq!(parent.child().trace_id, parent.trace_id);
        assert_ne!(parent.child().span_id, parent.span_id);
    }
}
