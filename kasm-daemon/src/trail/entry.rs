//! One entry of the audit log, as it is stored: JSON, whose very bytes the chain covers.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What an entry is of. See [`crate::trail`].
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call that may change something, before it does.
    Asked,
    /// How a call ended.
    Answered,
    /// A call that was answered with a secret.
    Told,
    /// A call that was turned away.
    Refused,
    /// The daemon began to serve.
    Started,
    /// The daemon ended in order.
    Stopped,
}

impl Kind {
    /// The word of the API and of messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Answered => "answered",
            Self::Told => "told",
            Self::Refused => "refused",
            Self::Started => "started",
            Self::Stopped => "stopped",
        }
    }
}

/// Who called.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// The token's name, or the user's; empty where no token is asked for.
    pub name: String,
    /// What he may do.
    pub role: String,
    /// The first 16 digits of his token's SHA-256, which tell tokens of one name apart; none where no token is asked for. An
    /// API token's whole SHA-256 stands in the config file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// An entry.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is of.
    pub kind: Kind,
    /// When: RFC 3339 in UTC with milliseconds.
    pub at: String,
    /// The request, as the daemon's log knows it. An `answered` belongs to the `asked` with the same one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// Who called; none for strangers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Who>,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// The HTTP method.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// The route, with parameters in braces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// What the call was about: `pool`, `config`, `server`, `session`, `workspace`, `user`; `made`: the
    /// place of what was made; `pool_id`: the pool of a machine; `user_digest`: the HMAC of the name of who wanted to log in. A name that names nothing is there
    /// as `hmac:` with its HMAC.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub object: BTreeMap<String, String>,
    /// The HMAC of query and body, the first 32 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The query, where the call succeeded, so that it says nothing but what this API knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// The HMAC of a token that is not accepted, the first 32 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_token: Option<String>,
    /// The HTTP status of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The code of the error, where it was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Whether the answer holds a secret: a password or a token.
    #[serde(default, skip_serializing_if = "is_false")]
    pub secret: bool,
    /// How many refused calls were not written since the entry before.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

// serde wants a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Entry {
    /// An entry of this kind that says nothing yet.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            at: String::new(),
            request: String::new(),
            caller: None,
            from: None,
            method: String::new(),
            route: String::new(),
            object: BTreeMap::new(),
            digest: None,
            query: None,
            unknown_token: None,
            status: None,
            code: None,
            secret: false,
            left_out: 0,
        }
    }

    /// As it is stored. Control characters are escaped: an entry is one line.
    pub fn text(&self) -> String {
        // A struct of texts, numbers and maps of texts always has a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What a stored text says.
    ///
    /// # Errors
    /// Why it is no entry.
    pub fn read(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s_26_an_entry_is_one_line_whatever_stands_in_it() {
        let mut entry = Entry::new(Kind::Asked);
        entry.object.insert("pool".into(), "a\r\n\u{1b}[31m{\"kind\":\"told\"}".into());
        let text = entry.text();
        assert!(text.bytes().all(|byte| byte >= b' '), "{text}");
        assert_eq!(Entry::read(&text).unwrap(), entry);
    }

    #[test]
    fn what_is_not_said_is_not_stored() {
        assert_eq!(Entry::new(Kind::Started).text(), r#"{"kind":"started","at":""}"#);
        assert!(Entry::read(r#"{"kind":"started","at":"","more":1}"#).is_err());
    }
}
