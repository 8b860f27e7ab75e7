//! How a user is connected to a server: the name to log in with, and the forms that clients read.
//!
//! Pure: what is given in comes out in another form. A value that a form cannot hold is a [`Problem`], never a value that is
//! half written or that says something else there.

use kasm_autoscale_core::config::{ConnectionType, JsonObject};
use kasm_autoscale_core::fields::Problem;
use secrecy::SecretString;
use serde_json::Value;

pub mod guacamole;
pub mod rdp;
pub mod sso;

/// Whose password a connection takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    /// One for all, which the host keeps.
    Static,
    /// The user's own.
    Sso,
    /// The user is asked.
    Prompt,
}

impl Credentials {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Sso => "sso",
            Self::Prompt => "prompt",
        }
    }
}

/// Where a user is connected to, and how he logs in there.
#[derive(Debug)]
pub struct Target {
    /// The protocol.
    pub kind: ConnectionType,
    /// IP address or host name; `None` while the machine has none.
    pub host: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// Whose password it takes.
    pub credentials: Credentials,
    /// The name to log in with; `None`: the user is asked.
    pub username: Option<String>,
    /// The password, where it is known.
    pub password: Option<SecretString>,
    /// `connection_info` of the config.
    pub info: JsonObject,
}

impl Target {
    /// `connection_info.guac.settings`: the settings that both forms understand.
    fn settings(&self, problems: &mut Vec<Problem>) -> JsonObject {
        let Some(guac) = self.info.get("guac") else { return JsonObject::new() };
        match (guac.as_object(), guac.get("settings")) {
            (Some(_), None | Some(Value::Null)) => JsonObject::new(),
            (Some(_), Some(Value::Object(settings))) => settings.clone(),
            _ => {
                let allowed =
                    "a table with the table settings in it, as in {\"settings\": {\"remote-app\": \"||Calc\"}}";
                problems.push(Problem::new("connection_info.guac", "something else (not shown)", allowed));
                JsonObject::new()
            }
        }
    }

    /// The address as host and port; a problem while there is none, or when it is none.
    fn address(&self, problems: &mut Vec<Problem>) -> Option<(&str, u16)> {
        let Some((host, port)) = self.host.as_deref().zip(self.port) else {
            problems.push(Problem::new("host", "nothing", "an address, which the machine has once it runs"));
            return None;
        };
        if !is_host(host) {
            let allowed = "an IP address or a host name; mend connection_address, or the provider's address setting";
            problems.push(Problem::new("host", "something else (not shown)", allowed));
            return None;
        }
        Some((host, port))
    }
}

/// Whether this is an IP address or a host name: nothing in it could be taken for anything else.
fn is_host(host: &str) -> bool {
    let is_name = |name: &str| {
        (1..=253).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
    };
    host.parse::<std::net::IpAddr>().is_ok() || is_name(host)
}

/// A setting as text, and what is no text, number or boolean as a problem.
fn setting_text(name: &str, value: &Value, problems: &mut Vec<Problem>) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(boolean) => Some(boolean.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(_) | Value::Object(_) => {
            let path = format!("connection_info.guac.settings.{name}");
            problems.push(Problem::new(path, "a list or table", "a text, a number, true or false"));
            None
        }
    }
}
