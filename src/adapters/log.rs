//! A backend of the crate `log` that records, with key-value pairs.
//!
//! ```
//! use stormlog::adapters::log::Recorder;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let temp = tempfile::tempdir()?;
//! let session = stormlog::Session::builder().dir(temp.path()).start()?;
//! Recorder::new(&session.log()).install(log::LevelFilter::Info)?;
//! log::info!(port = 6878; "engine started"); // a line of custom.jsonl
//! session.close()?;
//! # Ok(())
//! # }
//! ```

use log::kv::{self, Key, VisitSource, VisitValue};
use log::{Level, LevelFilter, Metadata, SetLoggerError};

use super::fields::{FIELDS_MAX, Fields};
use super::routes::Routes;
use crate::Log;
use crate::record::{Category, Extra, Value};
use crate::symbol;

/// Fields that a record has beside those of the caller.
const OWN_MAX: usize = 6;

/// Records everything that it is given; see `docs/ADAPTERS.md`.
///
/// The category of a record is `errors` for the level `Error`, what [`category`](Self::category)
/// says for its target, or else `custom`. Fields: `level`, `target`, `message`, the key-value
/// pairs, and `module` (where the target is another) and `line`.
#[derive(Clone, Debug)]
pub struct Recorder {
    log: Log,
    routes: Routes,
}

impl Recorder {
    /// A backend that records into the session of `log`. When that is closed it does nothing more.
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

    /// Makes it the backend of the process, for records of this level and more severe ones.
    ///
    /// # Errors
    /// When the process has a backend already.
    pub fn install(self, most: LevelFilter) -> Result<(), SetLoggerError> {
        log::set_boxed_logger(Box::new(self))?;
        log::set_max_level(most);
        Ok(())
    }

    fn route(&self, metadata: &Metadata<'_>) -> Category {
        let is_error = metadata.level() == Level::Error;
        self.routes.of(metadata.target(), is_error)
    }
}

impl log::Log for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.log.is_on(self.route(metadata))
    }

    fn log(&self, record: &log::Record<'_>) {
        let category = self.route(record.metadata());
        if !self.log.is_on(category) {
            return;
        }
        Fields::with(|fields| {
            fields.text("message", record.args());
            // A source that fails has said what it can.
            let _: Result<(), kv::Error> = record.key_values().visit(&mut Gather(fields));
            let mut room = [Extra::default(); FIELDS_MAX + OWN_MAX];
            room[0] = Extra::new(symbol!("level"), record.level().as_str());
            room[1] = Extra::new(symbol!("target"), record.target());
            let mut count = fields.extras(&mut room, 2);
            let module = record.module_path();
            if let Some(module) = module.filter(|module| *module != record.target()) {
                room[count] = Extra::new(symbol!("module"), module);
                count += 1;
            }
            if let Some(line) = record.line() {
                room[count] = Extra::new(symbol!("line"), line);
                count += 1;
            }
            self.log.event(category, &room[..count]);
        });
    }

    /// Nothing: what was logged is in the rings. `Session::flush` brings it into segments.
    fn flush(&self) {}
}

/// Gathers the key-value pairs of a record.
struct Gather<'a>(&'a mut Fields);

impl<'kvs> VisitSource<'kvs> for Gather<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
        value.visit(Typed {
            fields: self.0,
            name: key.as_str(),
        })
    }
}

/// One value, with its type.
struct Typed<'a> {
    fields: &'a mut Fields,
    name: &'a str,
}

impl Typed<'_> {
    fn plain(&mut self, value: impl Into<Value<'static>>) {
        self.fields.plain(self.name, value);
    }
}

impl VisitValue<'_> for Typed<'_> {
    fn visit_any(&mut self, value: kv::Value<'_>) -> Result<(), kv::Error> {
        self.fields.text(self.name, value);
        Ok(())
    }
    fn visit_null(&mut self) -> Result<(), kv::Error> {
        self.plain(Value::Null);
        Ok(())
    }
    fn visit_u64(&mut self, value: u64) -> Result<(), kv::Error> {
        self.plain(value);
        Ok(())
    }
    fn visit_i64(&mut self, value: i64) -> Result<(), kv::Error> {
        self.plain(value);
        Ok(())
    }
    fn visit_u128(&mut self, value: u128) -> Result<(), kv::Error> {
        self.fields.number(self.name, value);
        Ok(())
    }
    fn visit_i128(&mut self, value: i128) -> Result<(), kv::Error> {
        self.fields.number(self.name, value);
        Ok(())
    }
    fn visit_f64(&mut self, value: f64) -> Result<(), kv::Error> {
        self.plain(value);
        Ok(())
    }
    fn visit_bool(&mut self, value: bool) -> Result<(), kv::Error> {
        self.plain(value);
        Ok(())
    }
    fn visit_str(&mut self, value: &str) -> Result<(), kv::Error> {
        self.fields.text(self.name, value);
        Ok(())
    }
}
