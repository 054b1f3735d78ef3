//! Headers of a request as JSON, without what is secret.

use http::HeaderMap;

use crate::record::cut_text;
use crate::redact::{REDACTED, Redactor};

/// Headers that are recorded.
const HEADERS_MAX: usize = 64;
/// Bytes of a value.
const VALUE_BYTES_MAX: usize = 256;
/// Headers whose values are addresses, which may have a query.
const ADDRESSES: [&str; 3] = ["location", "referer", "origin"];
/// Last words of further ones, such as `x-original-url` and `x-forwarded-uri`.
const ADDRESS_WORDS: [&str; 3] = ["url", "uri", "path"];

/// An object of names and values; the values of a header that occurs more than once are joined.
pub(super) fn json(headers: &HeaderMap) -> String {
    let redactor = Redactor::built_in();
    let mut object = serde_json::Map::new();
    for name in headers.keys().take(HEADERS_MAX) {
        let name = name.as_str();
        let values = headers.get_all(name).iter();
        let values: Vec<_> = values
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        let value = clean(&redactor, name, &values.join(", "));
        object.insert(name.to_owned(), value.into());
    }
    serde_json::Value::Object(object).to_string()
}

/// The value of a header, or what stands in its place.
fn clean(redactor: &Redactor, name: &str, value: &str) -> String {
    if redactor.is_secret_name(name.as_bytes()) {
        return REDACTED.to_owned();
    }
    // Before it is cut, which could take from a secret what it is known by.
    let value = redactor.clean(value);
    let value = cut_text(&value, VALUE_BYTES_MAX);
    let is_address = ADDRESSES.contains(&name)
        || name
            .rsplit('-')
            .next()
            .is_some_and(|last| ADDRESS_WORDS.contains(&last));
    match value.split_once('?') {
        Some((path, _)) if is_address => format!("{path}?{REDACTED}"),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_told() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Basic dTpw"),
            ("proxy-authorization", "Bearer abcdef"),
            ("cookie", "sid=1234"),
            ("x-csrf-token", "t0k"),
            ("x-api-key", "k3y"),
            ("referer", "http://h/p?password=hunter2"),
            ("x-original-url", "http://h/p?code=hunter2"),
            ("x-other", "Bearer abcd1234efgh5678"),
            ("accept", "text/html"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        headers.append("accept", "\"*/*\"".parse().unwrap());
        headers.insert("x-long", "y".repeat(5000).parse().unwrap());
        let told: serde_json::Value = serde_json::from_str(&json(&headers)).unwrap();
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "x-csrf-token",
            "x-api-key",
        ] {
            assert_eq!(told[name], REDACTED, "{name}");
        }
        assert_eq!(told["referer"], "http://h/p?[redacted]");
        assert_eq!(told["x-original-url"], "http://h/p?[redacted]");
        assert_eq!(told["x-other"], "Bearer [redacted]");
        assert_eq!(told["accept"], "text/html, \"*/*\"");
        assert_eq!(told["x-long"].as_str().unwrap().len(), VALUE_BYTES_MAX);
    }

    #[test]
    fn many_headers_are_bounded() {
        let mut headers = HeaderMap::new();
        for number in 0..200 {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            headers.insert(name, "1".parse().unwrap());
        }
        let told: serde_json::Value = serde_json::from_str(&json(&headers)).unwrap();
        assert_eq!(told.as_object().unwrap().len(), HEADERS_MAX);
    }
}
