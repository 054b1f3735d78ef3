//! Records without fields of their own: open records, and the way out when a registry is full.

use super::category::Category;
use super::encode::Sink;
use super::extra::{EXTRAS_MAX, Extra, Fields};
use super::schema::{KeepClass, SchemaDef};
use super::symbol::{OPERATION_TEXT, Symbol};
use super::{Observed, Record, UNCAPPED};

/// A record of an open schema: all its values are extra fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open(pub(crate) Category);

impl Record for Open {
    type Fixed = ();

    #[inline(always)]
    fn schema(&self) -> &'static SchemaDef {
        self.0.schema()
    }
    #[inline(always)]
    fn keep(&self) -> KeepClass {
        self.0.schema().keep
    }
    #[inline(always)]
    fn fixed(&self, _cap: usize) {}
    #[inline(always)]
    fn variable_bytes(&self, _cap: usize) -> usize {
        0
    }
    #[inline(always)]
    fn write_variable(&self, _cap: usize, _out: &mut impl Sink) {}
    #[inline(always)]
    fn is_cut(&self, _cap: usize) -> bool {
        false
    }
    #[inline(always)]
    fn all_symbols(&self, _check: impl FnMut(Symbol) -> bool) -> bool {
        true
    }
    #[inline(always)]
    fn key_bytes(&self) -> &[u8] {
        &[]
    }
    fn visit<'s>(&'s self, _visit: &mut dyn FnMut(Extra<'s>)) {}
}

/// A record that describes itself: the fields of `record`, and `fields`, as extra fields of
/// category `custom`, with the name of its own category in front and without symbols. Used when
/// the registry has no room for the schema or a symbol.
#[derive(Clone, Copy)]
pub(crate) struct Described<'a> {
    pub(crate) record: &'a dyn Describe,
    pub(crate) fields: Fields<'a>,
}

/// The part of [`Record`] that works through a pointer; cold, so that it may.
pub(crate) trait Describe {
    fn schema_of(&self) -> &'static SchemaDef;
    fn keep_of(&self) -> KeepClass;
    fn is_cut_at(&self, cap: usize) -> bool;
    fn key_of(&self) -> &[u8];
    fn observed_of(&self) -> Option<Observed>;
    fn visit_all<'s>(&'s self, visit: &mut dyn FnMut(Extra<'s>));
}

impl<R: Record> Describe for R {
    fn schema_of(&self) -> &'static SchemaDef {
        self.schema()
    }
    fn keep_of(&self) -> KeepClass {
        self.keep()
    }
    fn is_cut_at(&self, cap: usize) -> bool {
        self.is_cut(cap)
    }
    fn key_of(&self) -> &[u8] {
        self.key_bytes()
    }
    fn observed_of(&self) -> Option<Observed> {
        self.observed()
    }
    fn visit_all<'s>(&'s self, visit: &mut dyn FnMut(Extra<'s>)) {
        self.visit(visit);
    }
}

impl Described<'_> {
    /// Calls `visit` for each extra field, cut to `cap`.
    fn each<'s>(&'s self, cap: usize, visit: &mut dyn FnMut(Extra<'s>)) {
        visit(Extra::new("category", self.record.schema_of().category));
        self.record
            .visit_all(&mut |extra| visit(extra.with_text_key().capped(cap)));
        let room = EXTRAS_MAX - 1 - self.record.schema_of().fields.len();
        let Fields { lead, own } = self.fields;
        for extra in lead.iter().chain(own).take(room) {
            visit(extra.with_text_key().capped(cap));
        }
    }
}

impl Record for Described<'_> {
    type Fixed = ();
    const OBSERVED: bool = true;

    fn schema(&self) -> &'static SchemaDef {
        Category::custom().schema()
    }
    fn keep(&self) -> KeepClass {
        self.record.keep_of()
    }
    fn fixed(&self, _cap: usize) {}
    fn variable_bytes(&self, cap: usize) -> usize {
        let mut bytes = 2;
        self.each(cap, &mut |extra| bytes += extra.bytes());
        bytes
    }
    fn write_variable(&self, cap: usize, out: &mut impl Sink) {
        let mut count = 0_u16;
        self.each(cap, &mut |_| count += 1);
        out.put(&count.to_le_bytes());
        self.each(cap, &mut |extra| extra.write(out));
    }
    fn is_cut(&self, cap: usize) -> bool {
        self.record.is_cut_at(cap) || self.fields.is_cut(cap)
    }
    fn all_symbols(&self, _check: impl FnMut(Symbol) -> bool) -> bool {
        true
    }
    fn key_bytes(&self) -> &[u8] {
        self.record.key_of()
    }
    /// Its symbols may be those that the registry had no room for.
    fn observed(&self) -> Option<Observed> {
        let observed = self.record.observed_of()?;
        let operation = OPERATION_TEXT;
        Some(Observed {
            operation,
            ..observed
        })
    }
    fn visit<'s>(&'s self, visit: &mut dyn FnMut(Extra<'s>)) {
        self.each(UNCAPPED, visit);
    }
}
