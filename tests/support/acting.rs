//! A record of the caller's own making: it does something while it is written, as a signal handler
//! or a value with code of its own can.
#![allow(dead_code, reason = "each test uses a part of it")]

use stormlog::record::{Extra, KeepClass, Record, SchemaDef, Sink, Symbol};

/// When it does it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// When it is asked for its schema.
    Schema,
    /// When there is room and its time is known, before anything is written.
    Fixed,
    /// When its body is written.
    Body,
}

/// A record without fields.
#[derive(Clone, Copy)]
pub struct Acting<F> {
    schema: &'static SchemaDef,
    at: At,
    act: F,
}

impl<F: Fn() + Copy> Acting<F> {
    /// Acts each time that it is asked for its schema.
    pub fn when_asked(schema: &'static SchemaDef, act: F) -> Self {
        let at = At::Schema;
        Self { schema, at, act }
    }

    /// Acts when there is room and its time is known, before anything is written.
    pub fn first(schema: &'static SchemaDef, act: F) -> Self {
        let at = At::Fixed;
        Self { schema, at, act }
    }

    /// Acts when its body is written.
    pub fn in_body(schema: &'static SchemaDef, act: F) -> Self {
        let at = At::Body;
        Self { schema, at, act }
    }

    fn act(&self, at: At) {
        if self.at == at {
            (self.act)();
        }
    }
}

impl<F: Fn() + Copy> Record for Acting<F> {
    type Fixed = ();
    fn schema(&self) -> &'static SchemaDef {
        self.act(At::Schema);
        self.schema
    }
    fn keep(&self) -> KeepClass {
        self.schema.keep
    }
    fn fixed(&self, _cap: usize) {
        self.act(At::Fixed);
    }
    fn variable_bytes(&self, _cap: usize) -> usize {
        0
    }
    fn write_variable(&self, _cap: usize, _out: &mut impl Sink) {
        self.act(At::Body);
    }
    fn is_cut(&self, _cap: usize) -> bool {
        false
    }
    fn all_symbols(&self, _check: impl FnMut(Symbol) -> bool) -> bool {
        true
    }
    fn key_bytes(&self) -> &[u8] {
        &[]
    }
    fn visit<'s>(&'s self, _visit: &mut dyn FnMut(Extra<'s>)) {}
}
