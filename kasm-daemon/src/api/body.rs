//! Reads what callers send: bodies and queries, within bounds, every mistake named.

use std::fmt;
use std::future::poll_fn;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use kasm_autoscale_core::config::{JsonObject, Problem};
use kasm_autoscale_core::fields::nearest;
use kasm_autoscale_core::id::InvalidId;
use kasm_autoscale_core::time::Span;
use secrecy::zeroize::Zeroizing;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::App;
use super::error::ApiError;

/// How long a small body may be, in bytes.
pub(crate) const SMALL_BYTES: usize = 16 * 1024;
/// A body of at most [`SMALL_BYTES`].
pub(crate) const SMALL: bool = false;
/// A body that may hold a config: the startup script alone may have 256 KiB, and escapes double it.
pub(crate) const LARGE: bool = true;

/// A JSON object in which no key stands twice.
#[derive(Debug)]
pub(crate) struct JsonBody<const SIZE: bool>(pub(crate) JsonObject);

impl<const SIZE: bool> FromRequest<App> for JsonBody<SIZE> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            let message = "the body must be JSON, with the header Content-Type: application/json";
            return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", message));
        }
        let max = if SIZE == LARGE { app.limits().body } else { SMALL_BYTES };
        let bytes = read_body(request.into_body(), max, app.limits().body_time).await?;
        parse_object(&bytes).map(Self)
    }
}

pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// The whole body, if it has at most `max` bytes and comes in time.
pub(crate) async fn read_body(body: Body, max: usize, patience: Duration) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    read_into(&mut bytes, body, max, patience).await?;
    Ok(bytes)
}

/// A body with a secret in it. There is room for all of it at once, so that no copy is left behind by growing, and what was
/// read is overwritten when it is dropped.
pub(crate) async fn read_secret_body(body: Body, patience: Duration) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SMALL_BYTES));
    read_into(&mut bytes, body, SMALL_BYTES, patience).await?;
    Ok(bytes)
}

async fn read_into(bytes: &mut Vec<u8>, mut body: Body, max: usize, patience: Duration) -> Result<(), ApiError> {
    let too_large = || {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("the body may have {max} bytes at most"))
    };
    if body.size_hint().lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    let reading = async {
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let frame =
                frame.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "body_broken_off", "the body broke off"))?;
            let data = frame.into_data().unwrap_or_default();
            if bytes.len() + data.len() > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(())
    };
    let slow = || ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body did not come in time");
    tokio::time::timeout(patience, reading).await.unwrap_or_else(|_| Err(slow()))
}

/// How deep lists and objects may lie in one another.
const DEPTH_MAX: usize = 64;

/// Whether lists and objects lie deeper in one another than they may. Looked at before anything is built of them.
fn is_too_deep(bytes: &[u8]) -> bool {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

/// The JSON object that these bytes are.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<JsonObject, ApiError> {
    if is_too_deep(bytes) {
        let message = format!("the body is nested deeper than {DEPTH_MAX} lists and objects");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "too_deep", message));
    }
    let malformed = |error: serde_json::Error| {
        ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is not valid JSON: {error}"))
    };
    match serde_json::from_slice::<Strict>(bytes).map_err(malformed)?.0 {
        Value::Object(object) => Ok(object),
        _ => Err(ApiError::invalid(vec![Problem::new("", "something else", "a JSON object")])),
    }
}

/// A JSON value in which no key stands twice: of two, nobody can say which one was meant.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = JsonObject::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(60).collect();
                return Err(de::Error::custom(format_args!("the key {key:?} stands there twice")));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

/// A reader over the query. Take every known parameter, then [`finish`](Self::finish).
#[derive(Debug)]
pub(crate) struct Params {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl FromRequestParts<App> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, ApiError> {
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let broken = |_| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "malformed_query",
                "the query cannot be read: NAME=VALUE, joined by &, in percent encoding",
            )
        };
        Ok(Self { given: query.map_err(broken)?.0, known: vec![], problems: vec![] })
    }
}

/// That there is no query: where nothing can be said, what is said is a mistake.
#[derive(Debug)]
pub(crate) struct NoParams;

impl FromRequestParts<App> for NoParams {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        Params::from_request_parts(parts, app).await?.finish().map(|()| Self)
    }
}

impl Params {
    /// The value of a parameter as it was sent.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let mut values = self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value);
        let value = values.next().cloned();
        if values.next().is_some() {
            self.problems.push(Problem::new(format!("?{name}"), "more than one", "one value"));
        }
        value
    }

    fn read<T>(&mut self, name: &'static str, allowed: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(name)?;
        let value = read(&text);
        if value.is_none() {
            let given: String = text.chars().take(60).collect();
            self.problems.push(Problem::new(format!("?{name}"), format!("{given:?}"), allowed));
        }
        value
    }

    /// A whole number within bounds.
    pub(crate) fn integer(&mut self, name: &'static str, bounds: RangeInclusive<u32>) -> Option<u32> {
        let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        self.read(name, &allowed, |text| text.parse().ok().filter(|number| bounds.contains(number)))
    }

    /// The number of something that is counted up.
    pub(crate) fn number(&mut self, name: &'static str) -> Option<i64> {
        self.read(name, "a whole number", |text| text.parse().ok())
    }

    /// A name or identifier.
    pub(crate) fn id<T: FromStr<Err = InvalidId>>(&mut self, name: &'static str) -> Option<T> {
        let mut allowed = "";
        let id = self.text(name)?.parse().map_err(|error: InvalidId| allowed = error.allowed);
        if id.is_err() {
            self.problems.push(Problem::new(format!("?{name}"), "something else", allowed));
        }
        id.ok()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &'static str) -> Option<bool> {
        self.read(name, "true or false", |text| text.parse().ok())
    }

    /// One of a few words.
    pub(crate) fn choice(&mut self, name: &'static str, words: &[&'static str]) -> Option<&'static str> {
        let allowed = format!("one of {}", words.join(", "));
        self.read(name, &allowed, |text| words.iter().find(|word| **word == text).copied())
    }

    /// A duration of at most `most`.
    pub(crate) fn span(&mut self, name: &'static str, most: Duration) -> Option<Duration> {
        let allowed = format!("a duration of at most \"{}\", as in \"30s\"", Span(most));
        self.read(name, &allowed, |text| Span::parse(text).map(|span| span.0).filter(|span| *span <= most))
    }

    /// All mistakes, if there are any. A parameter that nobody knows is one: it is most often a misspelt one.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        for (name, _) in &self.given {
            if !self.known.contains(&name.as_str()) {
                let allowed = match nearest(name, &self.known) {
                    Some(known) => format!("no such parameter; did you mean {known}?"),
                    None if self.known.is_empty() => "this route takes no parameters".into(),
                    None => format!("no such parameter; there are {}", self.known.join(", ")),
                };
                let name: String = name.chars().take(60).collect();
                self.problems.push(Problem::new(format!("?{name}"), "a value (not shown)", allowed));
            }
        }
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::invalid(self.problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_as_serde_json_reads_it() {
        let text = r#"{"a": [1, -2, 3.5, "x", null, true, {"b": {}}], "c": 18446744073709551615}"#;
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(parse_object(text.as_bytes()).unwrap()), value);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_at_every_depth() {
        for text in [r#"{"a": 1, "a": 1}"#, r#"{"x": [{"a": 1, "b": 2, "a": 3}]}"#, r#"{"a": 1, "\u0061": 1}"#] {
            let error = parse_object(text.as_bytes()).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
            assert!(error.message.contains("\"a\" stands there twice"), "{}", error.message);
        }
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for (text, status) in [("[]", 422), ("1", 422), ("", 400), ("{", 400), ("{} x", 400), ("\u{0}", 400)] {
            assert_eq!(parse_object(text.as_bytes()).unwrap_err().status.as_u16(), status, "{text:?}");
        }
    }

    #[test]
    fn s_16_lists_and_objects_lie_64_deep_at_most() {
        let deep = |count: usize| format!("{{\"a\":{}{}}}", "[".repeat(count - 1), "]".repeat(count - 1));
        assert!(parse_object(deep(DEPTH_MAX).as_bytes()).is_ok());
        for count in [DEPTH_MAX + 1, 200, 100_000] {
            assert_eq!(parse_object(deep(count).as_bytes()).unwrap_err().code, "too_deep", "{count}");
        }
        // What stands in a text lies nowhere, and many beside one another are not deep.
        let text =
            format!("{{\"a\": \"{}\\\"{}\", \"b\": [{}]}}", "[".repeat(100), "{".repeat(100), "[],".repeat(99) + "{}");
        assert!(parse_object(text.as_bytes()).is_ok(), "{text}");
    }

    #[test]
    fn all_mistakes_of_a_query_are_named_at_once() {
        let given =
            [("limit", "0"), ("wiat", "s3cret"), ("wait", "61s"), ("after", "x"), ("force", "yes"), ("force", "no")];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut params = Params { given, known: vec![], problems: vec![] };
        assert_eq!(params.integer("limit", 1..=9), None);
        assert_eq!(params.span("wait", Duration::from_secs(60)), None);
        assert_eq!(params.id::<kasm_autoscale_core::id::ServerId>("after"), None);
        assert_eq!(params.boolean("force"), None);
        let problems = params.finish().unwrap_err().problems;
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(paths, ["?limit", "?wait", "?after", "?force", "?force", "?wiat"]);
        assert!(problems.iter().all(|problem| !problem.to_string().contains("s3cret")));
    }
}
