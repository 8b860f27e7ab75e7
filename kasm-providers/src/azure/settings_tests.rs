use kasm_autoscale_core::fields::JsonObject;
use serde_json::json;

use super::*;

const CANARY: &str = "canary-secret-5b1f";
const ID: &str = "00000000-0000-0000-0000-000000000001";

fn secret() -> AzureCredentials {
    AzureCredentials::ClientSecret { tenant: ID.into(), client_id: ID.into(), client_secret: CANARY.into() }
}

fn read(value: Value) -> (Option<AzureSettings>, Vec<String>) {
    let object: JsonObject = value.as_object().expect("an object").clone();
    let mut fields = Fields::new(&object);
    let settings = AzureSettings::read(&mut fields, secret(), Some(AdminPassword::Same("Same-1234".into())));
    (settings, fields.finish().iter().map(ToString::to_string).collect())
}

#[test]
fn endpoints_are_encrypted_and_bare() {
    let rows = [
        ("https://management.azure.com", true),
        ("https://management.azure.com/", true),
        ("https://127.0.0.1:8443", true),
        ("https://localhost:8443", true),
        ("http://127.0.0.1:8443", false),
        ("https://user:pw@example.com", false),
        ("https://example.com/path", false),
        ("https://example.com?x=1", false),
        ("https://", false),
        ("management.azure.com", false),
        ("", false),
    ];
    for (url, expected) in rows {
        assert_eq!(base_url(url).is_some(), expected, "{url}");
    }
}

#[test]
fn each_cloud_has_its_addresses() {
    let rows = [
        ("public", "https://login.microsoftonline.com", "https://management.azure.com/"),
        ("us_government", "https://login.microsoftonline.us", "https://management.usgovcloudapi.net/"),
        ("china", "https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn/"),
    ];
    for (cloud, authority, endpoint) in rows {
        let (settings, problems) =
            read(json!({"subscription": ID, "resource_group": "desktops", "region": "westeurope", "cloud": cloud}));
        let settings = settings.unwrap_or_else(|| panic!("{problems:?}"));
        assert_eq!(
            (settings.authority().as_str(), settings.endpoint().expect("an address").as_str()),
            (authority, endpoint)
        );
        assert_eq!(settings.scope(), format!("{endpoint}.default"));
    }
    let mut settings = AzureSettings::new(ID, "desktops", "local", secret());
    settings.authority = Some("https://login.example.com".into());
    settings.endpoint_url = Some("https://arm.example.com".into());
    settings.audience = Some("https://arm.example.com/0123".into());
    assert_eq!(settings.problems(), []);
    assert_eq!(
        (settings.authority().as_str(), settings.scope().as_str()),
        ("https://login.example.com", "https://arm.example.com/0123/.default")
    );
}

#[test]
fn every_mistake_is_named_at_once() {
    let (settings, problems) = read(json!({
        "subscription": "mine", "resource_group": "ends.", "cloud": "germany", "authority": "http://login.example.com",
        "endpoint_url": "https://arm.example.com/path", "audience": "none", "ca_file": "ca.pem", "address": "ipv6",
        "call_timeout": "1h", "connect_timeout": "50s", "creates_in_flight_max": 0, "regoin": 1,
    }));
    assert!(settings.is_none());
    for part in [
        "subscription: given \"mine\"",
        "resource_group: given \"ends.\"",
        "region: given nothing; required",
        "cloud: given \"germany\"; one of \"public\"",
        "authority: given \"http",
        "endpoint_url: given \"https",
        "audience: given \"none\"",
        "ca_file: given \"ca.pem\"; the absolute path",
        "address: given \"ipv6\"",
        "call_timeout: given \"1h\"",
        "call_timeout: given 50s, 25s, 60s; connect_timeout",
        "creates_in_flight_max: given 0",
        "regoin: given 1; no such field; did you mean \"region\"?",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(part)), "{part} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 13, "{problems:#?}");
}

#[test]
fn credentials_and_passwords_have_their_forms() {
    let paths = |credentials: AzureCredentials, password: Option<AdminPassword>| -> Vec<String> {
        let mut settings = AzureSettings::new(ID, "desktops", "westeurope", credentials);
        settings.admin_password = password;
        settings.problems().into_iter().map(|problem| problem.path).collect()
    };
    assert_eq!(paths(secret(), None), [""; 0]);
    let bad =
        AzureCredentials::ClientSecret { tenant: "a/b".into(), client_id: "app".into(), client_secret: "".into() };
    assert_eq!(paths(bad, None), ["tenant_id", "client_id", "client_secret"]);
    let workload =
        AzureCredentials::WorkloadIdentity { tenant: Some("".into()), client_id: Some("app".into()), token_file: None };
    assert_eq!(paths(workload, None), ["tenant_id", "client_id"]);
    assert_eq!(paths(AzureCredentials::ManagedIdentity { client_id: Some("app".into()) }, None), ["client_id"]);
    assert_eq!(paths(AzureCredentials::DeveloperTools, None), [""; 0]);
    for (password, fits) in
        [("Abcdef1", false), ("Abcdefg1", true), ("abcdefgh1", false), ("abcdefg-1", true), ("ABCdefgh", false)]
    {
        let path: &[&str] = if fits { &[] } else { &["admin_password"] };
        assert_eq!(paths(secret(), Some(AdminPassword::Same(password.into()))), path, "{password}");
    }
    assert_eq!(paths(secret(), Some(AdminPassword::Derived("short".into()))), ["admin_password_key"]);
}

#[test]
fn no_secret_is_shown() {
    let mut settings = AzureSettings::new(ID, "desktops", "westeurope", secret());
    settings.admin_password = Some(AdminPassword::Same(CANARY.into()));
    settings.endpoint_url = Some(format!("https://u:{CANARY}@example.com"));
    let shown =
        format!("{settings:?} {:?} {:?} {:?}", settings.credentials, settings.admin_password, settings.problems());
    assert!(!shown.contains(CANARY), "{shown}");
}
