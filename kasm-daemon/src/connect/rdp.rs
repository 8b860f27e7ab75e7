//! The form that Remote Desktop clients read: a `.rdp` file.
//!
//! A line is `name:type:value`; the names are Microsoft's ("Supported RDP properties"). There is no way to write a line end in
//! a value, so a value that has one is refused. A password never stands in the file: the user is asked for it.

use kasm_autoscale_core::config::{ConnectionType, JsonObject};
use kasm_autoscale_core::fields::Problem;
use serde_json::Value;

use super::{Target, setting_text};

/// The media type of the file.
pub const MEDIA_TYPE: &str = "application/x-rdp";
/// The longest value that is written.
const VALUE_CHARS_MAX: usize = 1024;

/// The `.rdp` file for a target: ASCII where that will do, or else UTF-16 with a byte order mark, as Windows writes it.
///
/// # Errors
/// Every value that the file cannot hold.
pub fn render(target: &Target) -> Result<Vec<u8>, Vec<Problem>> {
    if target.kind != ConnectionType::Rdp {
        let allowed = "rdp: only Remote Desktop has such a file; ask for format=json";
        return Err(vec![Problem::new("connection_type", format!("\"{}\"", target.kind), allowed)]);
    }
    let mut problems = vec![];
    let settings = target.settings(&mut problems);
    let mut file = File { text: String::new(), settings, problems };
    if let Some((host, port)) = target.address(&mut file.problems) {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        file.text("full address", "host", &format!("{host}:{port}"));
    }
    if let Some(username) = &target.username {
        file.text("username", "username", username);
    }
    file.number("prompt for credentials", 1);
    let security = file.setting("security").unwrap_or_default();
    file.number("enablecredsspsupport", i32::from(!["rdp", "tls"].contains(&security.as_str())));
    // 2: warn of a certificate that cannot be verified. 0: connect all the same.
    let ignore = file.is_on("ignore-cert") == Some(true);
    file.number("authentication level", if ignore { 0 } else { 2 });
    file.experience();
    file.remote_app();
    if let Some(info) = file.setting("load-balance-info") {
        file.text("loadbalanceinfo", "connection_info.guac.settings.load-balance-info", &info);
    }
    if file.problems.is_empty() { Ok(encoded(&file.text)) } else { Err(file.problems) }
}

struct File {
    text: String,
    settings: JsonObject,
    problems: Vec<Problem>,
}

impl File {
    fn text(&mut self, name: &str, path: &str, value: &str) {
        // Beside control characters Unicode has two line ends of its own.
        let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        if value.chars().any(breaks) || value.chars().count() > VALUE_CHARS_MAX {
            let allowed = format!("at most {VALUE_CHARS_MAX} characters on one line, no control characters");
            self.problems.push(Problem::new(path, "something else (not shown)", allowed));
            return;
        }
        self.text += &format!("{name}:s:{value}\r\n");
    }

    fn number(&mut self, name: &str, value: i32) {
        self.text += &format!("{name}:i:{value}\r\n");
    }

    fn setting(&mut self, name: &str) -> Option<String> {
        let value = self.settings.get(name)?;
        setting_text(name, value, &mut self.problems).filter(|text| !text.is_empty())
    }

    fn is_on(&self, name: &str) -> Option<bool> {
        match self.settings.get(name)? {
            Value::Bool(on) => Some(*on),
            Value::String(text) => Some(text == "true"),
            _ => None,
        }
    }

    /// What is drawn, where the config says so: everything is off in Guacamole unless it is switched on, in a file it is the
    /// other way round.
    fn experience(&mut self) {
        for (setting, name, on) in [
            ("enable-font-smoothing", "allow font smoothing", 1),
            ("enable-wallpaper", "disable wallpaper", 0),
            ("enable-theming", "disable themes", 0),
            ("enable-full-window-drag", "disable full window drag", 0),
            ("enable-menu-animations", "disable menu anims", 0),
        ] {
            if let Some(is_on) = self.is_on(setting) {
                self.number(name, if is_on { on } else { 1 - on });
            }
        }
    }

    fn remote_app(&mut self) {
        let at = "connection_info.guac.settings";
        let Some(program) = self.setting("remote-app") else { return };
        self.number("remoteapplicationmode", 1);
        self.text("remoteapplicationprogram", &format!("{at}.remote-app"), &program);
        let name = program.trim_start_matches("||").to_owned();
        self.text("remoteapplicationname", &format!("{at}.remote-app"), &name);
        if let Some(arguments) = self.setting("remote-app-args") {
            self.text("remoteapplicationcmdline", &format!("{at}.remote-app-args"), &arguments);
        }
        if let Some(folder) = self.setting("remote-app-dir") {
            self.text("shell working directory", &format!("{at}.remote-app-dir"), &folder);
        }
        // Servers outside a farm are not asked whether they publish it.
        self.number("disableremoteappcapscheck", 1);
    }
}

fn encoded(text: &str) -> Vec<u8> {
    if text.is_ascii() {
        return text.as_bytes().to_vec();
    }
    std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use secrecy::SecretString;
    use serde_json::json;

    use super::super::Credentials;
    use super::*;

    fn target(username: &str, info: &Value) -> Target {
        Target {
            kind: ConnectionType::Rdp,
            host: Some("192.0.2.7".into()),
            port: Some(3389),
            credentials: Credentials::Sso,
            username: Some(username.into()),
            password: Some(SecretString::from("canary-pass".to_owned())),
            info: info.as_object().unwrap().clone(),
        }
    }

    /// As clients read it: every line is a name, a type and a value, and no name stands twice.
    fn parsed(bytes: &[u8]) -> BTreeMap<String, (char, String)> {
        let text = match bytes.strip_prefix(&[0xff, 0xfe]) {
            Some(rest) => {
                let units: Vec<u16> = rest.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
                String::from_utf16(&units).unwrap()
            }
            None => String::from_utf8(bytes.to_vec()).unwrap(),
        };
        let mut properties = BTreeMap::new();
        for line in text.strip_suffix("\r\n").unwrap().split("\r\n") {
            let mut parts = line.splitn(3, ':');
            let (name, kind, value) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
            assert!(["s", "i"].contains(&kind) && (kind == "s" || value.parse::<i32>().is_ok()), "{line}");
            assert!(!line.contains(['\r', '\n']), "{line:?}");
            let kind = kind.chars().next().unwrap();
            assert!(properties.insert(name.to_owned(), (kind, value.to_owned())).is_none(), "{name} stands twice");
        }
        properties
    }

    fn value<'a>(file: &'a BTreeMap<String, (char, String)>, name: &str) -> &'a str {
        file.get(name).map_or("(none)", |(_, value)| value)
    }

    #[test]
    fn a_desktop_has_its_address_and_its_user_and_no_password() {
        let bytes = render(&target("CORP\\ann", &json!({}))).unwrap();
        let file = parsed(&bytes);
        assert_eq!(value(&file, "full address"), "192.0.2.7:3389");
        assert_eq!(value(&file, "username"), "CORP\\ann");
        assert_eq!((value(&file, "authentication level"), value(&file, "enablecredsspsupport")), ("2", "1"));
        assert_eq!(value(&file, "remoteapplicationmode"), "(none)");
        assert!(
            !String::from_utf8(bytes).unwrap().contains("canary") && !file.keys().any(|key| key.contains("password"))
        );
    }

    #[test]
    fn a_remote_app_has_its_keys() {
        let settings = json!({ "guac": { "type": "rdp", "settings": {
            "remote-app": "||Calculator", "remote-app-args": "/q \"a b\"", "remote-app-dir": "C:\\Work", "ignore-cert": "true",
            "security": "tls", "enable-wallpaper": true, "enable-theming": false, "enable-font-smoothing": "true",
        } } });
        let file = parsed(&render(&target("ann", &settings)).unwrap());
        for (name, wanted) in [
            ("remoteapplicationmode", "1"),
            ("remoteapplicationprogram", "||Calculator"),
            ("remoteapplicationname", "Calculator"),
            ("remoteapplicationcmdline", "/q \"a b\""),
            ("shell working directory", "C:\\Work"),
            ("disableremoteappcapscheck", "1"),
            ("authentication level", "0"),
            ("enablecredsspsupport", "0"),
            ("disable wallpaper", "0"),
            ("disable themes", "1"),
            ("allow font smoothing", "1"),
        ] {
            assert_eq!(value(&file, name), wanted, "{name}");
        }
    }

    #[test]
    fn addresses_of_every_kind() {
        for (host, wanted) in [("2001:db8::7", "[2001:db8::7]:4000"), ("vm_1.corp.example", "vm_1.corp.example:4000")] {
            let target = Target { host: Some(host.into()), port: Some(4000), ..target("ann", &json!({})) };
            assert_eq!(value(&parsed(&render(&target).unwrap()), "full address"), wanted);
        }
        for host in ["", "a b", "a\r\nx:s:1", "host:1", "a/b", "ä"] {
            let target = Target { host: Some(host.into()), ..target("ann", &json!({})) };
            assert_eq!(render(&target).unwrap_err()[0].path, "host", "{host:?}");
        }
        let nowhere = Target { host: None, ..target("ann", &json!({})) };
        assert_eq!(render(&nowhere).unwrap_err()[0].path, "host");
    }

    #[test]
    fn a_value_that_would_start_a_line_is_refused_and_all_of_them_at_once() {
        let evil = "x\r\nalternate shell:s:evil.exe";
        let info = json!({ "guac": { "settings": {
            "remote-app": evil, "remote-app-args": "a\nb", "remote-app-dir": "a\u{85}b", "load-balance-info": ["x"],
        } } });
        let problems = render(&target("ann\u{2028}x", &info)).unwrap_err();
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.rsplit('.').next().unwrap()).collect();
        assert_eq!(
            paths,
            ["username", "remote-app", "remote-app", "remote-app-args", "remote-app-dir", "load-balance-info"]
        );
        assert!(problems.iter().all(|problem| !problem.to_string().contains("evil")));
        let ssh = Target { kind: ConnectionType::Ssh, ..target("ann", &json!({})) };
        assert_eq!(render(&ssh).unwrap_err()[0].path, "connection_type");
        assert_eq!(render(&target("ann", &json!({ "guac": "x" }))).unwrap_err()[0].path, "connection_info.guac");
    }

    #[test]
    fn names_outside_ascii_are_utf_16() {
        let bytes = render(&target("änne@corp.example", &json!({}))).unwrap();
        assert_eq!(bytes[..2], [0xff, 0xfe]);
        assert_eq!(value(&parsed(&bytes), "username"), "änne@corp.example");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_values_are_there_is_no_line_of_anybody_elses(
            name in "\\PC{0,20}|[a-z:\r\n\u{0}\u{85}\u{2028}|]{0,20}", app in "\\PC{0,20}|[|a-z:\r\n]{0,20}",
        ) {
            let info = json!({ "guac": { "settings": { "remote-app": app, "remote-app-args": name } } });
            if let Ok(bytes) = render(&target(&name, &info)) {
                let file = parsed(&bytes);
                prop_assert_eq!(value(&file, "username"), name.as_str());
                let known = ["full address", "username", "prompt for credentials", "enablecredsspsupport", "authentication level",
                    "remoteapplicationmode", "remoteapplicationprogram", "remoteapplicationname", "remoteapplicationcmdline",
                    "disableremoteappcapscheck"];
                prop_assert!(file.keys().all(|key| known.contains(&key.as_str())), "{:?}", file);
                prop_assert_eq!(value(&file, "full address"), "192.0.2.7:3389");
            }
        }
    }
}
