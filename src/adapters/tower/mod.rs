//! A middleware of `tower` that records requests: one record of the category `requests` for each,
//! when its response has been sent or given up.
//!
//! ```
//! use stormlog::adapters::tower::RequestLayer;
//!
//! # fn main() -> Result<(), stormlog::Error> {
//! # let temp = tempfile::tempdir().unwrap();
//! let session = stormlog::Session::builder().dir(temp.path()).start()?;
//! let app: axum::Router = axum::Router::new()
//!     .route("/health", axum::routing::get(|| async { "ok" }))
//!     .layer(RequestLayer::new(&session.log()));
//! # drop(app);
//! # session.close()?;
//! # Ok(())
//! # }
//! ```

mod body;
mod headers;
mod record;
mod service;

use std::net::SocketAddr;

use tower_layer::Layer;

use crate::Log;

pub use body::RecordBody;
pub use record::{HttpRequest, RequestId};
pub use service::{RecordFuture, RecordRequests};

/// How requests are recorded.
#[derive(Clone, Debug)]
pub struct RequestLayer {
    options: Options,
}

#[derive(Clone, Debug)]
struct Options {
    log: Log,
    client: fn(&http::Extensions) -> Option<SocketAddr>,
    headers: bool,
}

impl RequestLayer {
    /// Records into the session of `log`. Each request has:
    ///
    /// - an id: that of its header `x-request-id`, if it has 1 to 64 characters of `A-Z a-z 0-9 . _
    ///   : - /`, or else a new one. It is in the extensions of the request as [`RequestId`], in the
    ///   header of the response, and in every record that the service pushes while it is polled or
    ///   dropped;
    /// - a trace: that of its header `traceparent`, if it has one of them, or else a new one; the
    ///   handler's records carry `trace_id`, `span_id` and `parent_span_id`.
    ///
    /// The query of the address is not recorded.
    pub fn new(log: &Log) -> Self {
        Self {
            options: Options {
                log: log.clone(),
                client: |extensions| extensions.get().copied(),
                headers: false,
            },
        }
    }

    /// How to find the address of the client. By default an extension of the type [`SocketAddr`];
    /// in axum `|extensions| extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0)`.
    #[must_use]
    pub fn client(mut self, client: fn(&http::Extensions) -> Option<SocketAddr>) -> Self {
        self.options.client = client;
        self
    }

    /// Records the headers of requests too, default false: at most 64, each value cut to 256 bytes.
    /// `authorization`, `cookie` and whatever else has the name of a secret are written as
    /// `[redacted]`, as are the queries of addresses in `referer`, `x-original-url` and the like.
    #[must_use]
    pub fn headers(mut self, headers: bool) -> Self {
        self.options.headers = headers;
        self
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RecordRequests<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RecordRequests::new(inner, self.options.clone())
    }
}
