//! Symbols: repeated texts (operation names, states) that a record stores as a 4-byte id.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::intern::StaticSlot;

/// How many symbols one process can have. Further texts travel inline in their records.
pub const SYMBOLS_MAX: usize = 1 << 16;
/// The longest text that becomes a symbol, in bytes. Longer ones travel inline.
pub const SYMBOL_BYTES_MAX: usize = 1024;
/// Set in a slot whose text is inline; the other bits are its length in bytes.
pub(crate) const INLINE_BIT: u32 = 1 << 31;

/// As an operation: some text that is no symbol.
pub const OPERATION_TEXT: u32 = INLINE_BIT;

/// The highest id of a symbol.
const ID_MAX: u32 = SYMBOLS_MAX as u32;

static TABLE: [StaticSlot<StaticSymbol>; SYMBOLS_MAX] = [const { StaticSlot::new() }; SYMBOLS_MAX];
/// How many slots of `TABLE` are taken. Kept under 3/4 so that probing stays short.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A text with a process-wide id: 4 bytes in a record instead of the text.
///
/// Make one with [`symbol!`](crate::symbol!) (literal, once per call site) or
/// [`Symbol::intern`] (text known only at run time, cold).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Symbol(u32);

impl Symbol {
    /// The id as records store it, 1..=[`SYMBOLS_MAX`].
    #[inline]
    pub const fn id(self) -> u32 {
        self.0
    }

    /// The text behind the id.
    pub fn text(self) -> &'static str {
        entry(self.0).map_or("", |symbol| symbol.text)
    }

    /// The symbol of a text that has an id already.
    pub(crate) fn known(text: &str) -> Option<Self> {
        match probe(text) {
            Probe::Found(id) => Some(Self(id)),
            Probe::Free(_) => None,
        }
    }

    /// Gives `text` an id, for ever: the text is copied and stays in memory until the process
    /// ends, so use it for names, not for data. Allocates; not for the hot path.
    ///
    /// `None` when the table is full or the text is longer than [`SYMBOL_BYTES_MAX`]: pass the
    /// text itself then, it travels inline.
    pub fn intern(text: &str) -> Option<Self> {
        if text.len() > SYMBOL_BYTES_MAX {
            return None;
        }
        if let Probe::Found(id) = probe(text) {
            return Some(Self(id));
        }
        if is_full() {
            return None;
        }
        let symbol: &'static StaticSymbol =
            Box::leak(Box::new(StaticSymbol::new(String::leak(text.to_owned()))));
        symbol.get()
    }
}

/// The static behind [`symbol!`](crate::symbol!).
#[derive(Debug)]
pub struct StaticSymbol {
    text: &'static str,
    /// 0 = not yet known, `u32::MAX` = the table was full; otherwise the id.
    id: AtomicU32,
}

impl StaticSymbol {
    /// A symbol without an id yet.
    pub const fn new(text: &'static str) -> Self {
        Self {
            text,
            id: AtomicU32::new(0),
        }
    }

    /// The symbol; the first call of the process gives it its id. `None` when the table is full.
    #[inline]
    pub fn get(&'static self) -> Option<Symbol> {
        // Relaxed: the id alone; the table entry behind it is published by its own slot.
        match self.id.load(Relaxed) {
            id @ 1..=ID_MAX => Some(Symbol(id)),
            _ => self.assign(),
        }
    }

    /// The symbol as an argument: its id, or the text inline when the table is full.
    #[inline]
    pub fn name(&'static self) -> Name<'static> {
        match self.get() {
            Some(symbol) => Name::Symbol(symbol),
            None => Name::Text(self.text),
        }
    }

    #[cold]
    #[inline(never)]
    fn assign(&'static self) -> Option<Symbol> {
        if self.id.load(Relaxed) == u32::MAX {
            return None;
        }
        if self.text.len() > SYMBOL_BYTES_MAX {
            self.id.store(u32::MAX, Relaxed);
            return None;
        }
        loop {
            match probe(self.text) {
                Probe::Found(id) => {
                    self.id.store(id, Relaxed);
                    return Some(Symbol(id));
                }
                Probe::Free(index) => {
                    if is_full() {
                        self.id.store(u32::MAX, Relaxed);
                        return None;
                    }
                    if std::ptr::eq(TABLE[index].set(self), self) {
                        TAKEN.fetch_add(1, Relaxed);
                    }
                    // Taken by us or by another: the next probe tells.
                }
            }
        }
    }
}

/// The table never gets more than 3/4 full, so that probing stays short.
fn is_full() -> bool {
    TAKEN.load(Relaxed) as usize >= SYMBOLS_MAX / 4 * 3
}

enum Probe {
    Found(u32),
    Free(usize),
}

/// Linear probing. The table never gets more than 3/4 full, so a free slot always ends it.
fn probe(text: &str) -> Probe {
    let mut index = fnv1a(text.as_bytes()) as usize % SYMBOLS_MAX;
    loop {
        match TABLE[index].get() {
            None => return Probe::Free(index),
            Some(symbol) if symbol.text == text => return Probe::Found(index as u32 + 1),
            Some(_) => index = (index + 1) % SYMBOLS_MAX,
        }
    }
}

/// The text of the symbol with this id.
pub(crate) fn symbol_text(id: u32) -> Option<&'static str> {
    entry(id).map(|symbol| symbol.text)
}

fn entry(id: u32) -> Option<&'static StaticSymbol> {
    TABLE.get((id as usize).checked_sub(1)?)?.get()
}

/// FNV-1a, 32 bits folded: good enough to spread names over the table.
fn fnv1a(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)) as u32
}

/// What a symbol field takes: a symbol, or a text that travels inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A known symbol: 4 bytes.
    Symbol(Symbol),
    /// A text: 4 bytes and the text.
    Text(&'a str),
}

impl<'a> Name<'a> {
    /// The text, wherever it lies.
    pub fn text(self) -> &'a str {
        match self {
            Self::Symbol(symbol) => symbol.text(),
            Self::Text(text) => text,
        }
    }
}

impl Default for Name<'_> {
    fn default() -> Self {
        Self::Text("")
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<Symbol> for Name<'_> {
    fn from(symbol: Symbol) -> Self {
        Self::Symbol(symbol)
    }
}

/// A literal as a [`Name`] that costs 4 bytes in a record: `symbol!("start_container_begin")`.
///
/// The first use in the process gives the text an id; later uses are one load.
#[macro_export]
macro_rules! symbol {
    ($text:literal) => {{
        static SYMBOL: $crate::record::StaticSymbol = $crate::record::StaticSymbol::new($text);
        SYMBOL.name()
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_get_one_id() {
        let a = Symbol::intern("symbol-test-a").unwrap();
        let b = Symbol::intern("symbol-test-b").unwrap();
        assert_ne!(a, b);
        assert_eq!(Symbol::intern("symbol-test-a"), Some(a));
        assert_eq!(symbol!("symbol-test-a"), Name::Symbol(a));
        assert_eq!(a.text(), "symbol-test-a");
    }

    #[test]
    fn too_long_a_text_stays_inline() {
        let long = "x".repeat(SYMBOL_BYTES_MAX + 1);
        assert_eq!(Symbol::intern(&long), None);
    }

    #[test]
    fn threads_that_race_agree() {
        let ids: Vec<_> = std::thread::scope(|scope| {
            let spawn = |_| scope.spawn(|| Symbol::intern("symbol-test-race").unwrap().id());
            let threads: Vec<_> = (0..8).map(spawn).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}
