use std::time::Duration;

use kasm_autoscale_core::fields::{Fields, Problem};
use secrecy::SecretString;
use serde_json::{Value, json};

use super::{LdapSettings, LdapUrl, Scheme};

fn read_with(value: &Value, password: &str) -> (Option<LdapSettings>, Vec<String>) {
    let mut fields = Fields::new(value.as_object().expect("an object"));
    let settings = LdapSettings::read(&mut fields, SecretString::from(password));
    (settings, fields.finish().iter().map(Problem::to_string).collect())
}

fn read(value: &Value) -> (Option<LdapSettings>, Vec<String>) {
    read_with(value, "secret-secret")
}

fn least() -> Value {
    json!({ "url": "ldaps://dc1.corp.example", "bind_dn": "svc@corp.example", "search_base": "DC=corp,DC=example" })
}

#[test]
fn the_least_that_is_needed_gets_sensible_defaults() {
    let (settings, problems) = read(&least());
    assert_eq!(problems, [""; 0]);
    let settings = settings.expect("settings");
    assert_eq!(
        (settings.url.scheme(), settings.url.host(), settings.url.port()),
        (Scheme::Ldaps, "dc1.corp.example", 636)
    );
    assert_eq!(settings.domain_name().as_deref(), Some("corp.example"));
    assert_eq!(settings.computer_base().to_string(), "DC=corp,DC=example");
    assert!(settings.enabled && settings.subtree && !settings.keep_recovery_keys);
    assert_eq!((settings.timeout, settings.page_size), (Duration::from_secs(10), 500));
    assert!(settings.search_filter.to_string().contains("(sAMAccountName={username})"), "{}", settings.search_filter);
    assert_eq!(settings.deciding_groups(), None);
    assert!(!format!("{settings:?}").contains("secret-secret"));
}

#[test]
fn everything_can_be_said() {
    let mut value = least();
    let more = json!({
        "url": "ldap://[::1]:1389/", "search_filter": "(&(objectClass=user)(uid={0}))", "group_filter": "(member={0})",
        "required_groups": ["CN=a,DC=corp,DC=example"], "subtree": false, "enabled": false, "ca_file": "ca.pem",
        "computer_base": "OU=Desktops,DC=corp,DC=example", "keep_recovery_keys": true, "domain": "AD.Corp.Example",
        "timeout": "2s", "call_timeout": "30s", "visibility_lag": 0, "page_size": 1000, "poll_busy": "1s", "poll_idle": "1m",
    });
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let (settings, problems) = read(&value);
    assert_eq!(problems, [""; 0]);
    let settings = settings.expect("settings");
    assert_eq!((settings.url.scheme(), settings.url.to_string().as_str()), (Scheme::StartTls, "ldap://[::1]:1389"));
    assert_eq!(settings.search_filter.to_string(), "(&(objectClass=user)(uid={username}))");
    assert_eq!(settings.deciding_groups().expect("a filter").to_string(), "(member={user_dn})");
    assert_eq!(settings.domain_name().as_deref(), Some("ad.corp.example"));
    assert!(!settings.enabled && !settings.subtree && settings.keep_recovery_keys);
}

#[test]
fn all_mistakes_are_told_at_once_with_what_is_allowed() {
    let (settings, problems) = read(&json!({
        "url": "http://x", "bind_dn": " ", "search_base": "corp.example", "search_filter": "(uid=ann)", "group_filter": "(member={0}",
        "required_groups": ["students"], "ca_file": "", "domain": "-x-", "timeout": "1h", "page_size": 1, "tls": false,
    }));
    assert!(settings.is_none());
    let starts = [
        r#"url: given "http://x"; ldaps://host[:port], or ldap://"#,
        r#"bind_dn: given " "; the account that makes computer objects"#,
        r#"search_base: given "corp.example"; a distinguished name"#,
        r#"search_filter: given "(uid=ann)"; a search filter (RFC 4515) with {username} in a value"#,
        r#"group_filter: given "(member={0}"; a search filter (RFC 4515) with {user_dn} in a value: expected ')' at character 12"#,
        r#"required_groups[0]: given "students"; a distinguished name"#,
        r#"ca_file: given ""; the path of a PEM file"#,
        r#"domain: given "-x-"; a DNS name"#,
        r#"timeout: given "1h"; a duration"#,
        "page_size: given 1; a whole number from 10 to 1000",
        "tls: given false; no such field",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem} is not {start}");
    }
    assert!(problems.iter().all(|problem| !problem.contains("secret-secret")));
}

#[test]
fn what_is_missing_and_what_does_not_fit_together_is_told() {
    let (settings, problems) = read(&json!({}));
    assert!(settings.is_none());
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("given nothing; required: ")), "{problems:?}");

    let mut value = least();
    value["search_base"] = json!("O=corp");
    value["timeout"] = json!("1m");
    value["call_timeout"] = json!("2s");
    let (settings, problems) = read_with(&value, "");
    assert!(settings.is_none());
    let paths: Vec<&str> = problems.iter().filter_map(|problem| problem.split(':').next()).collect();
    assert_eq!(paths, ["bind_password", "domain", "timeout"], "{problems:?}");
}

#[test]
fn addresses_are_read_and_passwords_in_them_are_not_shown() {
    for (text, scheme, host, port) in [
        ("ldaps://dc1", Scheme::Ldaps, "dc1", 636),
        ("ldap://dc1:3389", Scheme::StartTls, "dc1", 3389),
        ("ldaps://127.0.0.1:6636/", Scheme::Ldaps, "127.0.0.1", 6636),
        ("ldaps://[::1]", Scheme::Ldaps, "::1", 636),
    ] {
        let url: LdapUrl = text.parse().expect(text);
        assert_eq!((url.scheme(), url.host(), url.port()), (scheme, host, port));
    }
    for text in [
        "",
        "dc1",
        "ldapi:///x",
        "ldaps://",
        "ldaps://:636",
        "ldaps://a b",
        "ldaps://a:0",
        "ldaps://a:70000",
        "ldaps://a/b",
        "ldaps://a?b",
        "LDAPS://a",
        "ldaps://[::1",
        "ldaps://[::1]x",
    ] {
        assert!(text.parse::<LdapUrl>().is_err(), "{text}");
    }
    let mut value = least();
    value["url"] = json!("ldaps://svc:hidden@dc1");
    let (_, problems) = read(&value);
    assert!(problems[0].contains("an address with a user in it") && !problems[0].contains("hidden"), "{problems:?}");
}
