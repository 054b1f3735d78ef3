//! A layer of `tracing_subscriber` that records events and spans.
//!
//! ```
//! use stormlog::adapters::tracing::RecordLayer;
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! # fn main() -> Result<(), stormlog::Error> {
//! # let temp = tempfile::tempdir().unwrap();
//! let session = stormlog::Session::builder().dir(temp.path()).start()?;
//! let layer = RecordLayer::new(&session.log());
//! let subscriber = tracing_subscriber::registry().with(layer);
//! tracing::subscriber::with_default(subscriber, || {
//!     tracing::info!(port = 6878, "engine started"); // a line of custom.jsonl
//! });
//! # session.close()?;
//! # Ok(())
//! # }
//! ```

use std::fmt::Debug;

use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::fields::{FIELDS_MAX, Fields};
use super::routes::Routes;
use crate::Log;
use crate::context::{self, Inline};
use crate::producer::Fate;
use crate::record::{Category, Extra, Open};
use crate::sampling::KeyHash;
use crate::symbol;

/// Fields that a record has beside those of the caller.
const OWN_MAX: usize = 6;
/// Longest name of a record of a span, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// Records every event and span that reaches it; see the [module](self) and `docs/ADAPTERS.md`.
///
/// Which those are is up to the filters of the subscriber. The category of a record is `errors` for
/// the level `ERROR`, `requests` for targets of `tower_http`, `database` for those of `sqlx`, what
/// [`category`](Self::category) says, or else `custom`.
///
/// A span is two records, `<name>_begin` and `<name>_end`, with one `operation_id`, the
/// `parent_operation_id` of the span around it, and its duration; events have the `operation_id` of
/// their span. Nested operations of [`span`](crate::span) belong to a span that is entered.
#[derive(Clone, Debug)]
pub struct RecordLayer {
    log: Log,
    routes: Routes,
}

impl RecordLayer {
    /// A layer that records into the session of `log`. When that is closed it does nothing more.
    pub fn new(log: &Log) -> Self {
        Self {
            log: log.clone(),
            routes: Routes::new(),
        }
    }

    /// The category for records of this target, and of those below it (`app` has `app::vpn`); the
    /// longest target that fits counts.
    #[must_use]
    pub fn category(mut self, target: &str, category: Category) -> Self {
        self.routes.add(target, category);
        self
    }

    fn route(&self, metadata: &Metadata<'_>) -> Category {
        let is_error = *metadata.level() == Level::ERROR;
        self.routes.of(metadata.target(), is_error)
    }
}

/// What a span needs for its end.
struct Running {
    category: Category,
    operation: u64,
    parent: u64,
    begin: u64,
    key: Option<KeyHash>,
    fate: Fate,
    /// Recorded after its begin.
    later: Fields,
}

/// Gathers the fields of an event or span.
struct Gather<'a> {
    fields: &'a mut Fields,
    /// Adds `duration_ms` to what names a duration otherwise.
    timed: bool,
}

impl Gather<'_> {
    fn duration(&mut self, ms: f64) {
        self.fields.plain("duration_ms", (ms * 1e3).round() / 1e3);
    }
}

impl Visit for Gather<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.plain(field.name(), value);
        if self.timed && field.name() == "elapsed_secs" {
            self.duration(value * 1e3);
        }
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.plain(field.name(), value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.plain(field.name(), value);
    }
    fn record_i128(&mut self, field: &Field, value: i128) {
        self.fields.number(field.name(), value);
    }
    fn record_u128(&mut self, field: &Field, value: u128) {
        self.fields.number(field.name(), value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.plain(field.name(), value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.text(field.name(), value);
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.text(field.name(), format_args!("{value:?}"));
        if self.timed && field.name() == "latency" {
            let ms = self.fields.text_of("latency").and_then(latency_ms);
            if let Some(ms) = ms {
                self.duration(ms);
            }
        }
    }
}

/// What `tower_http` writes: `12 ms`.
fn latency_ms(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit {
        "s" | "seconds" => 1e3,
        "ms" => 1.0,
        "\u{3bc}s" | "\u{b5}s" | "us" => 1e-3,
        "ns" => 1e-6,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some(number * scale)
}

/// Whether durations of this category have other names there.
fn is_timed(category: Category) -> bool {
    matches!(category.name(), "requests" | "database")
}

fn level(metadata: &Metadata<'_>) -> Extra<'static> {
    let level = match *metadata.level() {
        Level::ERROR => symbol!("ERROR"),
        Level::WARN => symbol!("WARN"),
        Level::INFO => symbol!("INFO"),
        Level::DEBUG => symbol!("DEBUG"),
        Level::TRACE => symbol!("TRACE"),
    };
    Extra::new(symbol!("level"), level.text())
}

/// The operation of a span; 0 when it is not recorded.
fn operation_of<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> u64 {
    let extensions = span.extensions();
    extensions
        .get()
        .map_or(0, |running: &Running| running.operation)
}

impl<S> Layer<S> for RecordLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let metadata = event.metadata();
        let category = self.route(metadata);
        if !self.log.is_on(category) {
            return;
        }
        let operation = ctx.event_span(event).map_or(0, |span| operation_of(&span));
        Fields::with(|fields| {
            let timed = is_timed(category);
            event.record(&mut Gather { fields, timed });
            let mut room = [Extra::default(); FIELDS_MAX + OWN_MAX];
            room[0] = level(metadata);
            room[1] = Extra::new(symbol!("target"), metadata.target());
            let mut count = 2;
            if operation > 0 {
                room[count] = Extra::new(symbol!("operation_id"), operation);
                count += 1;
            }
            let count = fields.extras(&mut room, count);
            self.log.event(category, &room[..count]);
        });
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else {
            return;
        };
        let category = self.route(attributes.metadata());
        let Some(begin) = self.log.ticks(&Open(category)) else {
            return;
        };
        let operation = context::next_operation();
        let parent = span.parent().map_or(0, |parent| operation_of(&parent));
        let mut running = Running {
            category,
            operation,
            parent: if parent > 0 {
                parent
            } else {
                context::innermost_operation()
            },
            begin,
            key: self.log.key_hash(&operation.to_le_bytes()),
            fate: Fate::Off,
            later: Fields::default(),
        };
        Fields::with(|fields| {
            let timed = is_timed(category);
            attributes.record(&mut Gather { fields, timed });
            let name = record_name(attributes.metadata(), "_begin");
            let mut room = [Extra::default(); FIELDS_MAX + OWN_MAX];
            let count = running.own(attributes.metadata(), &name, &mut room);
            let count = fields.extras(&mut room, count);
            let (key, extras) = (running.key, &room[..count]);
            running.fate = self
                .log
                .push_begin(Open(category), [&[], extras], key, begin);
        });
        if running.fate != Fate::Off {
            span.extensions_mut().replace(running);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else {
            return;
        };
        // Not into the extensions themselves: a value may log while it is formatted.
        Fields::with(|fields| {
            values.record(&mut Gather {
                fields,
                timed: false,
            });
            if let Some(running) = span.extensions_mut().get_mut::<Running>() {
                running.later.append_all(fields);
            }
        });
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        let operation = ctx.span(id).map_or(0, |span| operation_of(&span));
        if operation > 0 {
            context::begin_operation(operation);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        let operation = ctx.span(id).map_or(0, |span| operation_of(&span));
        if operation > 0 {
            context::end_operation(operation);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else {
            return;
        };
        let Some(running) = span.extensions_mut().remove::<Running>() else {
            return;
        };
        let Some(now) = self.log.ticks(&Open(running.category)) else {
            return;
        };
        let name = record_name(span.metadata(), "_end");
        let mut room = [Extra::default(); FIELDS_MAX + OWN_MAX];
        let mut count = running.own(span.metadata(), &name, &mut room);
        let ms = self.log.between(running.begin, now).as_secs_f64() * 1e3;
        room[count] = Extra::new(symbol!("duration_ms"), (ms * 1e3).round() / 1e3);
        count = running.later.extras(&mut room, count + 1);
        let Running {
            category,
            key,
            fate,
            ..
        } = running;
        let extras = [&[], &room[..count]];
        self.log
            .push_end(Open(category), extras, key, now, (fate, false));
    }
}

impl Running {
    /// The first fields of both records; returns how many there are.
    fn own<'a>(
        &self,
        metadata: &Metadata<'static>,
        name: &'a Inline<NAME_BYTES_MAX>,
        room: &mut [Extra<'a>],
    ) -> usize {
        room[0] = Extra::new(symbol!("operation"), name.as_str());
        room[1] = Extra::new(symbol!("operation_id"), self.operation);
        room[2] = level(metadata);
        room[3] = Extra::new(symbol!("target"), metadata.target());
        if self.parent == 0 {
            return 4;
        }
        room[4] = Extra::new(symbol!("parent_operation_id"), self.parent);
        5
    }
}

fn record_name(metadata: &Metadata<'_>, suffix: &str) -> Inline<NAME_BYTES_MAX> {
    let mut name = Inline::new(crate::record::cut_text(metadata.name(), 100));
    name.push(suffix);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_units() {
        assert_eq!(latency_ms("12 ms"), Some(12.0));
        assert_eq!(latency_ms("1.5 s"), Some(1500.0));
        assert_eq!(latency_ms("250 \u{3bc}s"), Some(0.25));
        for wrong in ["", "12", "ms", "12 parsecs", "NaN ms", "inf s"] {
            assert_eq!(latency_ms(wrong), None, "{wrong}");
        }
    }
}
