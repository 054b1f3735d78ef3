//! The record of a request, and what is known of one while it runs.

use std::fmt::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{HeaderMap, Method, StatusCode, Version};

use crate::Log;
use crate::context::{Context, Inline, SpanId, TraceParent};
use crate::record::{DurationMs, Extra, Name, ShortText, Symbol, Text, Value};
use crate::symbol;

crate::record! {
    /// A request and its response.
    pub struct HttpRequest in "requests" keep Sampled key request_id {
        /// HTTP method.
        method: Symbol,
        /// Path without the query; its first 2,048 bytes.
        path: Text<2048>,
        /// Time from the request to the end of the response.
        duration_ms: DurationMs<2>,
        /// Time to the first byte of the body, or to the head where there is none; null when there
        /// was no response.
        ttfb_ms: Option<DurationMs<2>>,
        /// HTTP status; null when there was no response.
        status_code: Option<u16>,
        /// Bytes of the body that were taken from the service.
        bytes: u64,
        /// `completed`; `aborted`: dropped before the end of the response, as when the client has
        /// gone; `failed`: the service, or the body, ended with an error.
        outcome: Symbol,
        /// The error.
        error: Option<Text<1024>>,
        /// Address of the client.
        client: Option<ShortText<64>>,
        /// Id of the request.
        request_id: ShortText<64>,
    }
}

/// The id of a request, in its extensions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestId(Inline<64>);

/// Longest error that is recorded, in bytes.
const ERROR_BYTES_MAX: usize = 512;
/// Longest path that is recorded, in bytes: as the record has it.
const PATH_BYTES_MAX: usize = 2048;

impl RequestId {
    /// The id that a client sent, if it is one that can be passed on.
    pub(super) fn of_header(header: &[u8]) -> Option<Self> {
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-/".contains(byte);
        if !(1..=64).contains(&header.len()) || !header.iter().all(good) {
            return None;
        }
        std::str::from_utf8(header)
            .ok()
            .map(|text| Self(Inline::new(text)))
    }

    /// A new one: 16 random digits.
    pub(super) fn random() -> Self {
        let digits = SpanId::random().digits();
        Self(Inline::new(
            std::str::from_utf8(&digits).unwrap_or_default(),
        ))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A request that runs. Recorded when it is dropped, if not before.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) log: Log,
    pub(super) context: Context,
    method: Method,
    path: String,
    path_cut: bool,
    version: Version,
    pub(super) id: RequestId,
    client: Option<SocketAddr>,
    headers: Option<String>,
    content_length: Option<u64>,
    /// Reading of the counter at its begin; `None`: nothing is recorded.
    begin: Option<u64>,
    head: Option<StatusCode>,
    /// Length of the body, if it is known.
    expected: Option<u64>,
    first_byte: Option<u64>,
    bytes: u64,
}

/// How a request ends.
pub(super) enum End<'a> {
    Completed,
    Aborted,
    Failed(&'a dyn std::fmt::Display),
}

impl Running {
    pub(super) fn begin<B>(options: &super::Options, request: &http::Request<B>) -> Self {
        let header = |name: &str| request.headers().get(name).map(http::HeaderValue::as_bytes);
        let id = header("x-request-id").and_then(RequestId::of_header);
        let id = id.unwrap_or_else(RequestId::random);
        let context = Context::new().request_id(id.as_str());
        let context = match traceparent(request.headers()) {
            Some(parent) => context.continue_trace(parent),
            None => context.trace(TraceParent::random()),
        };
        let begin = options.log.ticks(&HttpRequest::default());
        let path = crate::record::cut_text(request.uri().path(), PATH_BYTES_MAX);
        let records_headers = options.headers && begin.is_some();
        Self {
            log: options.log.clone(),
            context,
            method: request.method().clone(),
            path: path.to_owned(),
            path_cut: path.len() < request.uri().path().len(),
            version: request.version(),
            id,
            client: (options.client)(request.extensions()),
            headers: records_headers.then(|| super::headers::json(request.headers())),
            content_length: header("content-length")
                .and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()),
            begin,
            head: None,
            expected: None,
            first_byte: None,
            bytes: 0,
        }
    }

    /// The head of the response is there; `bytes`: how long its body will be, if that is known.
    pub(super) fn head(&mut self, status: StatusCode, bytes: Option<u64>) {
        self.head = Some(status);
        let has_none = self.method == Method::HEAD
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.expected = if has_none { Some(0) } else { bytes };
    }

    /// Bytes of the body, or its end: the first call is the first byte.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.first_byte.is_none() {
            self.first_byte = self.log.ticks(&HttpRequest::default());
        }
    }

    /// Records it, once.
    pub(super) fn end(&mut self, end: &End<'_>) {
        let Some(begin) = self.begin.take() else {
            return;
        };
        let Some(now) = self.log.ticks(&HttpRequest::default()) else {
            return;
        };
        let since = |at| self.log.between(begin, at);
        let outcome = match end {
            End::Completed => symbol!("completed"),
            End::Aborted => symbol!("aborted"),
            End::Failed(_) => symbol!("failed"),
        };
        let (error, error_cut) = match end {
            End::Failed(error) => {
                let (text, is_cut) = text_of(*error);
                (Some(text), is_cut)
            }
            End::Completed | End::Aborted => (None, false),
        };
        let client = self.client.map(|client| {
            let mut text = Inline::<64>::EMPTY;
            let _: std::fmt::Result = write!(text, "{client}");
            text
        });
        let record = HttpRequest {
            method: method(&self.method),
            path: &self.path,
            duration_ms: since(now),
            ttfb_ms: self.first_byte.map(since),
            status_code: self.head.map(|status| status.as_u16()),
            bytes: self.bytes,
            outcome,
            error: error.as_ref().map(Inline::as_str),
            client: client.as_ref().map(Inline::as_str),
            request_id: self.id.as_str(),
        };
        self.push(record, self.path_cut || error_cut);
    }

    fn push(&self, record: HttpRequest<'_>, is_cut: bool) {
        let mut extras = [Extra::default(); 3];
        extras[0] = Extra::new(symbol!("version"), version(self.version));
        extras[1] = Extra::new(symbol!("request_bytes"), self.content_length);
        let headers = self.headers.as_deref().map_or(Value::Null, Value::Json);
        extras[2] = Extra::new(symbol!("request_headers"), headers);
        let count = if self.headers.is_some() { 3 } else { 2 };
        // Its trace, for the line and for what stress rules tell of it.
        let _scope = self.context.enter();
        self.log.push_request(record, &extras[..count], is_cut);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A server need not ask for the end of a body whose length it knows.
        if self.expected == Some(self.bytes) {
            self.sent(0);
            self.end(&End::Completed);
        } else {
            self.end(&End::Aborted);
        }
    }
}

/// The header of the caller. More than one is none.
fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut all = headers.get_all("traceparent").iter();
    let (Some(header), None) = (all.next(), all.next()) else {
        return None;
    };
    TraceParent::parse(header.to_str().ok()?)
}

/// The text of an error, and whether it was cut. Nobody else may ask for it, so a panic in it is
/// kept from the service.
fn text_of(error: &dyn std::fmt::Display) -> (Inline<ERROR_BYTES_MAX>, bool) {
    let shown = catch_unwind(AssertUnwindSafe(|| {
        let mut text = Inline::EMPTY;
        // Full, or an error that cannot say more.
        let is_cut = write!(text, "{error}").is_err();
        (text, is_cut)
    }));
    shown.unwrap_or_else(|_| (Inline::new("[panicked]"), false))
}

/// The usual methods are symbols; what a client makes up is not.
fn method(method: &Method) -> Name<'_> {
    match method.as_str() {
        "GET" => symbol!("GET"),
        "HEAD" => symbol!("HEAD"),
        "POST" => symbol!("POST"),
        "PUT" => symbol!("PUT"),
        "DELETE" => symbol!("DELETE"),
        "OPTIONS" => symbol!("OPTIONS"),
        "PATCH" => symbol!("PATCH"),
        other => Name::Text(crate::record::cut_text(other, 64)),
    }
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_taken_if_they_are_harmless() {
        for good in ["a", "8f14e45f-ceea-467f", "a.b_c:d/e", &"x".repeat(64)] {
            let id = RequestId::of_header(good.as_bytes()).unwrap();
            assert_eq!(id.as_str(), good);
        }
        for bad in ["", " ", "a b", "a\"b", "a\nb", "\u{e4}", &"x".repeat(65)] {
            assert_eq!(RequestId::of_header(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(RequestId::random().as_str().len(), 16);
        assert_ne!(RequestId::random(), RequestId::random());
    }
}
