//! What a session knows of symbols, schemas and categories: each is written into the registry
//! before the first record that needs it.

use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Core;
use crate::record::{SchemaDef, SchemaIds, Symbol, category_name, schema, symbol_text};
use crate::segment::entry::Entry;

/// Tells all threads whether an entry is in the registry. Threads that race append it twice, which
/// readers allow; one that finds no room takes nothing back from one that did.
fn tell(known: &AtomicU8, registered: bool) {
    if registered {
        // Release: the entry was committed before.
        known.store(1, Release);
    } else if let Err(before) = known.compare_exchange(0, 2, Relaxed, Relaxed) {
        // Relaxed: there is nothing to see behind it.
        debug_assert!(before == 1 || before == 2);
    }
}

impl Core {
    /// Whether the symbol is in the registry. Acquire: pairs with the Release in
    /// `register_symbol`, so that the writer who sees our record also sees the symbol.
    #[inline(always)]
    pub(crate) fn knows_symbol(&self, symbol: Symbol) -> bool {
        // Not an index: a push has no way for a panic.
        let known = self.symbols.get(symbol.id() as usize);
        known.is_some_and(|known| known.load(Acquire) == 1)
    }

    /// Writes a symbol into the registry. False when there is no room: use the text.
    #[cold]
    pub(crate) fn register_symbol(&self, symbol: Symbol) -> bool {
        let known = &self.symbols[symbol.id() as usize];
        // Relaxed: the last load acquires.
        if known.load(Relaxed) == 0 {
            let entry = Entry::Symbol(symbol.id(), symbol.text());
            tell(known, self.storage.registry.append(&entry).is_ok());
        }
        known.load(Acquire) == 1
    }

    /// Writes a schema and its category into the registry and opens its gate. False when there is
    /// no room.
    #[cold]
    pub(crate) fn register_schema(&self, ids: SchemaIds, def: &'static SchemaDef) -> bool {
        let registered = self.enter_schema(ids, def);
        // Relaxed: whoever registered it may not have come to its gate, and whoever looks at a gate
        // next wants it open.
        if registered && self.gates.gate(ids.schema).load(Relaxed) == 0 {
            self.refresh_gate(ids);
        }
        registered
    }

    /// [`register_schema`](Self::register_schema) without the gate.
    pub(crate) fn enter_schema(&self, ids: SchemaIds, def: &'static SchemaDef) -> bool {
        let known = &self.schemas[usize::from(ids.schema)];
        // Relaxed: the last load acquires.
        if known.load(Relaxed) == 0 {
            let keep = self.keep_class(ids.category, def.keep);
            let registered = self.enter_category(ids.category)
                && self
                    .storage
                    .registry
                    .append(&Entry::Schema(ids, keep, def))
                    .is_ok();
            (self.rules.iter()).for_each(|rules| rules.prepare(ids.schema, def));
            tell(known, registered);
        }
        known.load(Acquire) == 1
    }

    /// Calls `visit` with an entry for everything that is in the registry.
    pub(crate) fn registered(&self, visit: &mut impl FnMut(&Entry<'_>)) {
        // Relaxed, each: names and schemas are tables of the process with an order of their own.
        for (category, known) in self.categories.iter().enumerate() {
            if known.load(Relaxed)
                && let Some(name) = category_name(category as u8)
            {
                visit(&Entry::Category(category as u8, name));
            }
        }
        for (number, known) in self.schemas.iter().enumerate() {
            if known.load(Relaxed) == 1
                && let Some(def) = schema(number as u16)
                && let Some(ids) = def.ids()
            {
                visit(&Entry::Schema(
                    ids,
                    self.keep_class(ids.category, def.keep),
                    def,
                ));
            }
        }
        for (id, known) in self.symbols.iter().enumerate() {
            if known.load(Relaxed) == 1
                && let Some(text) = symbol_text(id as u32)
            {
                visit(&Entry::Symbol(id as u32, text));
            }
        }
    }

    /// Writes a category into the registry. False when there is no room.
    pub(crate) fn enter_category(&self, category: u8) -> bool {
        let known = &self.categories[usize::from(category)];
        if known.load(Acquire) {
            return true;
        }
        let name = category_name(category).unwrap_or("custom");
        let done = self
            .storage
            .registry
            .append(&Entry::Category(category, name))
            .is_ok();
        if done {
            known.store(true, Release);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_finds_no_room_takes_nothing_back() {
        let state = |told: &[bool]| {
            let known = AtomicU8::new(0);
            for registered in told {
                tell(&known, *registered);
            }
            known.into_inner()
        };
        assert_eq!(state(&[false]), 2);
        assert_eq!(state(&[true]), 1);
        assert_eq!(state(&[true, false]), 1);
        assert_eq!(state(&[false, true]), 1);
        assert_eq!(state(&[false, false]), 2);
    }
}
