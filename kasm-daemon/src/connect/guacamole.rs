//! The form that Apache Guacamole reads: a protocol and its parameters ("Configuring Guacamole", connection parameters).

use std::collections::BTreeMap;

use kasm_autoscale_core::config::ConnectionType;
use kasm_autoscale_core::fields::{Problem, shown};
use secrecy::SecretString;

use super::{Target, setting_text};

/// A connection as Guacamole takes it. All parameters are texts there.
#[derive(Debug)]
pub struct Connection {
    /// `rdp`, `vnc` or `ssh`.
    pub protocol: &'static str,
    /// All parameters but the password.
    pub parameters: BTreeMap<String, String>,
    /// The parameter `password`.
    pub password: Option<SecretString>,
}

/// The Guacamole connection for a target.
///
/// `connection_info.guac.settings` come as they are; where the server is and who logs in is not theirs to say. For RDP, unless
/// they say otherwise, `security` is `any` and `ignore-cert` is `true`, since a machine that was made a moment ago has a
/// certificate that it signed itself.
///
/// # Errors
/// Every setting that is no text, number or boolean; a connection type that Guacamole does not know.
pub fn render(mut target: Target) -> Result<Connection, Vec<Problem>> {
    let protocol = match target.kind {
        ConnectionType::Rdp => "rdp",
        ConnectionType::Vnc => "vnc",
        ConnectionType::Ssh => "ssh",
        ConnectionType::KasmVnc => {
            let allowed = "rdp, vnc or ssh: Guacamole does not speak KasmVNC; ask for format=json";
            return Err(vec![Problem::new("connection_type", "\"kasmvnc\"", allowed)]);
        }
    };
    let mut problems = vec![];
    if let Some(given) = target.info.get("guac").and_then(|guac| guac.get("type")).filter(|given| *given != protocol) {
        let allowed = format!("\"{protocol}\", as the connection_type, or nothing");
        problems.push(Problem::new("connection_info.guac.type", shown(given), allowed));
    }
    let mut parameters = BTreeMap::new();
    if target.kind == ConnectionType::Rdp {
        parameters.insert("security".to_owned(), "any".to_owned());
        parameters.insert("ignore-cert".to_owned(), "true".to_owned());
    }
    for (name, value) in target.settings(&mut problems) {
        if let Some(text) = setting_text(&name, &value, &mut problems) {
            parameters.insert(name, text);
        }
    }
    for own in ["hostname", "port", "username", "password"] {
        parameters.remove(own);
    }
    if let Some((host, port)) = target.address(&mut problems) {
        parameters.insert("hostname".into(), host.into());
        parameters.insert("port".into(), port.to_string());
    }
    if let Some(username) = target.username.take() {
        let (domain, name) = match username.split_once('\\') {
            Some((domain, name)) if target.kind == ConnectionType::Rdp => (Some(domain), name),
            _ => (None, username.as_str()),
        };
        parameters.extend(domain.map(|domain| ("domain".to_owned(), domain.to_owned())));
        parameters.insert("username".into(), name.into());
    }
    if problems.is_empty() { Ok(Connection { protocol, parameters, password: target.password }) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::super::Credentials;
    use super::*;

    fn target(kind: ConnectionType, username: &str, info: &Value) -> Target {
        Target {
            kind,
            host: Some("192.0.2.7".into()),
            port: Some(3389),
            credentials: Credentials::Sso,
            username: Some(username.into()),
            password: Some(SecretString::from("canary-pass".to_owned())),
            info: info.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn settings_are_merged_and_cannot_say_where_or_who() {
        let info = json!({ "guac": { "type": "rdp", "settings": {
            "remote-app": "||Calc", "ignore-cert": false, "dpi": 96, "printer-name": null,
            "hostname": "evil", "port": 1, "username": "root", "password": "x", "domain": "OLD",
        } }, "kasm_svc": { "port": 4902 } });
        let made = render(target(ConnectionType::Rdp, "CORP\\ann", &info)).unwrap();
        let wanted = [
            ("domain", "CORP"),
            ("dpi", "96"),
            ("hostname", "192.0.2.7"),
            ("ignore-cert", "false"),
            ("port", "3389"),
            ("remote-app", "||Calc"),
            ("security", "any"),
            ("username", "ann"),
        ];
        assert_eq!(made.parameters, wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!((made.protocol, made.password.as_ref().unwrap().expose_secret()), ("rdp", "canary-pass"));
        assert!(!format!("{made:?}").contains("canary"));
        let made = render(target(ConnectionType::Rdp, "ann@corp.example", &info)).unwrap();
        assert_eq!((&*made.parameters["username"], &*made.parameters["domain"]), ("ann@corp.example", "OLD"));
    }

    #[test]
    fn other_protocols_have_no_parameters_of_rdp() {
        let made = render(target(ConnectionType::Vnc, "a\\b", &json!({}))).unwrap();
        let names: Vec<&str> = made.parameters.keys().map(String::as_str).collect();
        assert_eq!((names, &*made.parameters["username"]), (vec!["hostname", "port", "username"], "a\\b"));
    }

    #[test]
    fn what_guacamole_cannot_be_told_is_named() {
        let problems = |kind, info: Value| -> Vec<String> {
            render(target(kind, "a", &info)).unwrap_err().into_iter().map(|problem| problem.path).collect()
        };
        assert_eq!(problems(ConnectionType::KasmVnc, json!({})), ["connection_type"]);
        let info = json!({ "guac": { "type": "vnc", "settings": { "a": [], "b": {}, "c": 1 } } });
        let at = "connection_info.guac";
        assert_eq!(
            problems(ConnectionType::Rdp, info),
            [format!("{at}.type"), format!("{at}.settings.a"), format!("{at}.settings.b")]
        );
    }
}
