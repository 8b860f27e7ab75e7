//! From the core's values to what stands on the wire: times in RFC 3339, durations as people write them.

use std::fmt::Display;

use kasm_autoscale_core::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

use crate::clock::rfc3339;

/// Names in a message end after so many.
const NAMES_MAX: usize = 20;

/// A text from outside as it stands in a message: quoted, escaped, at most 63 characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(63).collect();
    format!("{short:?}")
}

/// What there is, for somebody who asked for something else.
pub(super) fn there_are<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let count = names.len();
    let list: Vec<&str> = names.take(NAMES_MAX).collect();
    match count {
        0 => "there are none".into(),
        _ if count > NAMES_MAX => format!("there are {} and {} more", list.join(", "), count - NAMES_MAX),
        _ => format!("there are {}", list.join(", ")),
    }
}

/// Something that was decided or that happened: the same in words and as a typed value.
pub(super) fn told<T: Display + Serialize>(what: &T) -> (String, Value) {
    let mut words = what.to_string();
    // The core's own values are maps with texts as keys, which always have a JSON form.
    let mut value = serde_json::to_value(what).unwrap_or_default();
    to_wire(&mut value, &mut words);
    (words, value)
}

/// Brings the instants and durations in a value, and the instants in the words beside it, into the form of the wire.
fn to_wire(value: &mut Value, words: &mut String) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| to_wire(item, words)),
        Value::Object(object) => {
            for (key, field) in object {
                match key.as_str() {
                    "at" | "since" | "until" => {
                        if let Ok(at) = Timestamp::deserialize(&*field) {
                            *words = words.replace(&at.to_string(), &rfc3339(at));
                            *field = rfc3339(at).into();
                        }
                    }
                    "waited" => {
                        if let Ok(waited) = Duration::deserialize(&*field) {
                            *field = Span(waited).to_string().into();
                        }
                    }
                    _ => to_wire(field, words),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kasm_autoscale_core::report::{BackoffKind, Decision, Supply, Waiting, What};
    use serde_json::json;

    #[test]
    fn instants_are_written_as_calendars_do() {
        let until = Timestamp::from_millis(1_790_000_000_250);
        let because = Waiting::BackingOff { until, kind: BackoffKind::Boot, failures: 2 };
        let decision = Decision::Wait { servers: 1, supply: Supply { free: 0, coming: 0, target: 1 }, because };
        let (words, value) = told(&decision);
        assert_eq!(
            words,
            "1 servers short: 0 free + 0 coming, target 1; waiting: backing off until 2026-09-21T14:13:20.250Z after 2 failures: servers do not become ready"
        );
        assert_eq!(value["because"]["until"], json!("2026-09-21T14:13:20.250Z"));
        assert_eq!(value["decision"], json!("wait"));
    }

    #[test]
    fn durations_are_written_as_people_do() {
        use kasm_autoscale_core::id::{ServerId, SessionId};
        let placed = What::SessionPlaced {
            session: SessionId::new(1),
            user: "ann".parse().unwrap(),
            server: ServerId::new(2),
            waited: Duration::from_millis(90_500),
        };
        assert_eq!(told(&placed).1["waited"], json!("1m30s500ms"));
    }

    #[test]
    fn lists_of_names_are_bounded() {
        assert_eq!(there_are([].into_iter()), "there are none");
        assert_eq!(there_are(["a", "b"].into_iter()), "there are a, b");
        let many = vec!["x"; 25];
        assert!(there_are(many.into_iter()).ends_with("x and 5 more"));
        assert_eq!(shown("a\n\u{1b}[31m"), r#""a\n\u{1b}[31m""#);
    }
}
