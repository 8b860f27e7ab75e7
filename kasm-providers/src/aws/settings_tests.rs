use kasm_autoscale_core::fields::JsonObject;
use serde_json::json;

use super::*;

const CANARY: &str = "canary-secret-5b1f";

fn keys() -> AwsCredentials {
    AwsCredentials::Static {
        access_key_id: "AKIAEXAMPLE".to_owned(),
        secret_access_key: CANARY.into(),
        session_token: Some(format!("{CANARY}-token").into()),
    }
}

fn read(value: Value) -> (Option<AwsSettings>, Vec<String>) {
    let object: JsonObject = value.as_object().expect("an object").clone();
    let mut fields = Fields::new(&object);
    let settings = AwsSettings::read(&mut fields, AwsCredentials::Chain);
    (settings, fields.finish().iter().map(ToString::to_string).collect())
}

#[test]
fn endpoints_are_encrypted_or_on_loopback() {
    let rows = [
        ("https://ec2.eu-central-1.amazonaws.com", true),
        ("https://vpce-1.ec2.eu-central-1.vpce.amazonaws.com:443/path", true),
        ("http://127.0.0.1:5000", true),
        ("http://127.9.9.9", true),
        ("http://localhost:5000/", true),
        ("http://[::1]:5000", true),
        ("http://10.0.0.1:5000", false),
        ("http://169.254.169.254", false),
        ("http://localhost.example.com", false),
        ("http://127.0.0.1.example.com", false),
        ("http://127.0.0.1@example.com", false),
        ("http://127.0.0.1\\@example.com", false),
        ("https://user:pw@example.com", false),
        ("ftp://127.0.0.1", false),
        ("127.0.0.1:5000", false),
        ("https://", false),
        ("http://", false),
        ("https://host name", false),
        ("", false),
    ];
    for (url, expected) in rows {
        assert_eq!(is_safe_endpoint(url), expected, "{url}");
    }
}

#[test]
fn defaults_are_as_documented() {
    let (settings, problems) = read(json!({"region": "eu-central-1"}));
    let settings = settings.expect("settings");
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(
        (settings.page_size, settings.creates_in_flight_max, settings.address),
        (1000, 20, AddressChoice::Private)
    );
    assert_eq!((settings.visibility_lag, settings.call_timeout), (Duration::from_secs(300), Duration::from_secs(30)));
}

#[test]
fn every_mistake_is_named_at_once() {
    let (settings, problems) = read(json!({
        "region": "Frankfurt", "endpoint_url": "http://ec2.example.com", "address": "ipv6", "page_size": 4,
        "connect_timeout": "2m", "regoin": 1,
    }));
    assert!(settings.is_none());
    for part in [
        "region: given \"Frankfurt\"",
        "endpoint_url: given \"http://ec2",
        "address: given",
        "page_size: given 4",
        "connect_timeout: given",
        "regoin",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part} is not in {problems:#?}");
    }
}

#[test]
fn keys_and_profiles_do_not_mix_and_keys_are_not_empty() {
    let mut settings = AwsSettings::new("us-east-1", keys());
    assert_eq!(settings.problems(), []);
    settings.profile = Some("desktops".to_owned());
    assert_eq!(settings.problems()[0].path, "profile");
    let empty = AwsCredentials::Static {
        access_key_id: "AKIA EXAMPLE".into(),
        secret_access_key: "".into(),
        session_token: Some("".into()),
    };
    let paths: Vec<String> =
        AwsSettings::new("us-east-1", empty).problems().into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["access_key_id", "secret_access_key", "session_token"]);
}

#[test]
fn no_secret_is_shown() {
    let mut settings = AwsSettings::new("us-east-1", keys());
    settings.endpoint_url = Some(format!("https://u:{CANARY}@example.com"));
    let shown = format!("{settings:?} {:#?} {:?}", settings.credentials, settings.problems());
    assert!(!shown.contains(CANARY), "{shown}");
    assert!(shown.contains("AKIAEXAMPLE"));
}
