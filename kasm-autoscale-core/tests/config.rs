//! Pools and configs as people write them: every mistake is told with its place, and what is read is written as it was.

use std::collections::BTreeSet;
use std::time::Duration;

use kasm_autoscale_core::config::{
    ConfigSpec, ConnectionPassword, ConnectionType, JsonObject, NamePattern, PlacementPolicy, PoolSpec,
};
use kasm_autoscale_core::fields::{Fields, Problem, nearest, shown};
use kasm_autoscale_core::id::{DeploymentId, PoolId, ProviderName, ServerId, ServerKey};
use kasm_autoscale_core::time::{Span, Timestamp};
use proptest::prelude::*;
use serde_json::{Value, json};

fn object(value: Value) -> JsonObject {
    value.as_object().cloned().expect("an object")
}

fn config(value: Value) -> Result<ConfigSpec, Vec<Problem>> {
    ConfigSpec::from_json(&object(value)).map_err(|invalid| invalid.problems)
}

fn pool(value: Value) -> Result<PoolSpec, Vec<Problem>> {
    let (deployment, id) = (DeploymentId::from_bytes([1; 16]), PoolId::from_bytes([2; 16]));
    PoolSpec::from_json(deployment, id, &object(value)).map_err(|invalid| invalid.problems)
}

/// A config with one field set, and what is said about it.
fn said_of(field: &str, value: &Value) -> Vec<String> {
    let mut all = json!({ "name": "aws", "provider": "aws" });
    if field == "ad_directory" {
        all["ad_computer_ou_dn"] = json!("OU=x,DC=y");
    }
    all[field] = value.clone();
    config(all).map_or_else(|problems| problems.iter().map(ToString::to_string).collect(), |_| vec![])
}

const NAME: &str = "1 to 63 letters, digits, '.', '_' or '-', the first one a letter or digit";

#[test]
fn every_mistake_is_told_with_what_was_given_and_what_is_allowed() {
    let long = "x".repeat(300);
    let (address, info) = ("x".repeat(256), "x".repeat(65_529));
    let script = "x".repeat(ConfigSpec::SCRIPT_BYTES_MAX + 1);
    let password = "\"{sso_cred}\", or {\"secret\": NAME} with the name of a secret that the host keeps; a password itself does not belong here";
    let username = "at most 256 characters, {sso_username} the only placeholder, no other braces or control characters";
    let alone =
        "of use only with ad_directory, the LDAP config that makes computer objects; set that too, or leave this out";
    let table: Vec<(&str, Value, String)> = vec![
        ("name", json!("-x"), format!("given \"-x\"; {NAME}")),
        ("name", json!(7), "given 7; a text in quotes".into()),
        ("name", Value::Null, "given nothing; required: the config's name".into()),
        ("provider", Value::Null, "given nothing; required: the name of a provider".into()),
        ("provider", json!("a b"), format!("given \"a b\"; {NAME}")),
        ("enabled", json!("yes"), "given \"yes\"; true or false".into()),
        ("zone", json!(""), format!("given \"\"; {NAME}")),
        ("connection_type", json!("RDP"), "given \"RDP\"; one of \"rdp\", \"vnc\", \"ssh\", \"kasmvnc\"".into()),
        ("connection_port", json!(0), "given 0; a whole number from 1 to 65535".into()),
        ("connection_port", json!(65536), "given 65536; a whole number from 1 to 65535".into()),
        ("connection_port", json!(22.5), "given 22.5; a whole number from 1 to 65535".into()),
        ("connection_address", json!([]), "given []; a text in quotes".into()),
        ("connection_address", json!(address), format!("given \"{}...; at most 255 characters", &address[..56])),
        ("upstream_auth_address", json!(address), format!("given \"{}...; at most 255 characters", &address[..56])),
        ("connection_info", json!({ "a": info }), "given 65537 bytes; at most 65536 bytes of JSON".into()),
        ("machine", json!({ "a": info }), "given 65537 bytes; at most 65536 bytes of JSON".into()),
        ("connection_username", json!("{user}"), format!("given \"{{user}}\"; {username}")),
        ("connection_username", json!("a\nb"), format!("given \"a\\nb\"; {username}")),
        ("connection_username", json!(long), format!("given \"{}...; {username}", &long[..56])),
        ("connection_password", json!("hunter2"), format!("given something else (not shown); {password}")),
        ("connection_password", json!({"secret": "a b"}), format!("given something else (not shown); {password}")),
        (
            "connection_password",
            json!({"secret": "a", "b": 1}),
            format!("given something else (not shown); {password}"),
        ),
        ("connection_info", json!("x"), "given \"x\"; an object (a table in TOML)".into()),
        ("reusable", json!(1), "given 1; true or false".into()),
        ("minimum_available_sessions", json!(-1), "given -1; a whole number from 0 to 1000000".into()),
        ("minimum_available_sessions", json!(1_000_001), "given 1000001; a whole number from 0 to 1000000".into()),
        ("max_sessions_per_server", json!(0), "given 0; a whole number from 1 to 1000".into()),
        ("max_sessions_per_server", json!(1001), "given 1001; a whole number from 1 to 1000".into()),
        ("max_servers", json!("many"), "given \"many\"; a whole number from 0 to 1000000".into()),
        (
            "downscale_backoff",
            json!("8d"),
            "given \"8d\"; a duration from \"0s\" to \"7d\", as in \"90s\" or \"1h30m\", or whole seconds".into(),
        ),
        (
            "downscale_backoff",
            json!("1h1h"),
            "given \"1h1h\"; a duration from \"0s\" to \"7d\", as in \"90s\" or \"1h30m\", or whole seconds".into(),
        ),
        ("require_checkin", json!("true"), "given \"true\"; true or false".into()),
        (
            "boot_deadline",
            json!(0),
            "given 0; a duration from \"1s\" to \"1d\", as in \"90s\" or \"1h30m\", or whole seconds".into(),
        ),
        (
            "boot_deadline",
            json!("soon"),
            "given \"soon\"; a duration from \"1s\" to \"1d\", as in \"90s\" or \"1h30m\", or whole seconds".into(),
        ),
        ("priority", json!(1001), "given 1001; a whole number from 0 to 1000".into()),
        ("breaker_failures", json!(0), "given 0; a whole number from 1 to 64".into()),
        ("breaker_window", json!(65), "given 65; a whole number from 1 to 64".into()),
        (
            "keep_failed_for",
            json!("8d"),
            "given \"8d\"; a duration from \"0s\" to \"7d\", as in \"90s\" or \"1h30m\", or whole seconds".into(),
        ),
        ("keep_failed_max", json!(-1), "given -1; a whole number from 0 to 1000".into()),
        ("machine", json!([1]), "given [1]; an object (a table in TOML)".into()),
        ("startup_script", json!(script), "given 262145 bytes; at most 262144 bytes".into()),
        ("startup_script", json!(5), "given 5; a text in quotes".into()),
        ("upstream_auth_address", json!(5), "given 5; a text in quotes".into()),
        (
            "server_name_pattern",
            json!("desk"),
            "given \"desk\"; exactly one of {random} and {number}, as in \"kasm-{random}\"".into(),
        ),
        ("ad_directory", json!(5), "given 5; a text in quotes".into()),
        ("ad_computer_ou_dn", json!("OU=x"), format!("given \"OU=x\"; {alone}")),
        ("ad_recursive_cleanup", json!(true), format!("given true; {alone}")),
        ("max_server", json!(5), "given 5; no such field; did you mean \"max_servers\"?".into()),
    ];
    for (field, value, expected) in table {
        assert_eq!(said_of(field, &value), [format!("{field}: {expected}")], "{field} = {}", shown(&value));
    }
    // Every field that is read has a mistake in the table above: these are all of them.
    let fields = config(json!({ "name": "a", "provider": "b" })).unwrap().to_json();
    assert_eq!(fields.as_object().unwrap().len(), 29);
}

#[test]
fn a_breaker_looks_at_as_many_servers_as_it_needs() {
    let breaker = |mut fields: Value| {
        fields["name"] = json!("aws");
        fields["provider"] = json!("aws");
        let spec = config(fields).map_err(|problems| problems[0].to_string())?;
        Ok::<_, String>((spec.breaker_failures, spec.breaker_window))
    };
    assert_eq!(breaker(json!({})), Ok((5, 10)));
    assert_eq!(breaker(json!({ "breaker_failures": 20 })), Ok((20, 20)));
    assert_eq!(breaker(json!({ "breaker_window": 3 })), Ok((3, 3)));
    assert_eq!(breaker(json!({ "breaker_failures": 64, "breaker_window": 64 })), Ok((64, 64)));
    let refused =
        "breaker_failures: given 6; at most breaker_window, which is 5: no more than that are looked at".to_owned();
    assert_eq!(breaker(json!({ "breaker_failures": 6, "breaker_window": 5 })), Err(refused));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let problems = config(json!({ "enabled": 1, "colour": "red", "connection_port": "x" })).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["name", "provider", "enabled", "connection_port", "colour"]);
    let unknown = problems.last().unwrap().to_string();
    assert!(
        unknown.starts_with("colour: given \"red\"; no such field; the fields are name, provider, enabled, zone, "),
        "{unknown}"
    );
}

#[test]
fn no_password_is_shown_in_a_message() {
    for given in
        [json!("hunter2"), json!({ "secret": "hunter2!" }), json!(["hunter2"]), json!({ "password": "hunter2" })]
    {
        let said = said_of("connection_password", &given).join("\n");
        assert!(!said.is_empty() && !said.contains("hunter2"), "I-27 {said}");
    }
}

#[test]
fn variables_that_will_never_have_a_value_are_told() {
    let said = |mut fields: Value| {
        for (name, value) in [("name", "aws"), ("provider", "aws")] {
            fields[name] = json!(value);
        }
        config(fields).map_or_else(|problems| problems.iter().map(ToString::to_string).collect(), |_| vec![])
    };
    let none: [String; 0] = [];
    let user = "startup_script: given {connection_username}; ";
    assert_eq!(
        said(json!({ "startup_script": "'{connection_username}'" })),
        [format!("{user}set connection_username")]
    );
    let own = "connection_username is the user's own here, which is not known when a machine starts; set a static one";
    assert_eq!(
        said(json!({ "startup_script": "'{connection_username}'", "connection_username": "{sso_username}" })),
        [format!("{user}{own}")]
    );
    assert_eq!(said(json!({ "startup_script": "'{connection_username}'", "connection_username": "admin" })), none);
    assert_eq!(
        said(json!({ "startup_script": "'{connection_password}'", "connection_password": "{sso_cred}" })).len(),
        1
    );
    assert_eq!(
        said(json!({ "startup_script": "'{connection_password}'", "connection_password": { "secret": "s" } })),
        none
    );
    assert_eq!(
        said(json!({ "startup_script": "'{domain}'" })),
        [
            "startup_script: given {domain}; this config joins no Active Directory domain; set ad_directory and ad_computer_ou_dn"
        ]
    );
    assert_eq!(
        said(json!({ "startup_script": "'{upstream_auth_address}'" })),
        ["startup_script: given {upstream_auth_address}; set upstream_auth_address"]
    );
    let broken = said(json!({ "startup_script": "line one\n'{nonsense}'" }));
    assert!(broken.len() == 1 && broken[0].starts_with("startup_script: given line 2, column "), "{broken:?}");
}

#[test]
fn what_is_unwise_is_warned_of() {
    let warned = |mut fields: Value| -> Vec<String> {
        for (name, value) in [("name", "aws"), ("provider", "aws")] {
            fields[name] = json!(value);
        }
        config(fields).unwrap().warnings().into_iter().map(|problem| problem.path).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(warned(json!({})), none);
    assert_eq!(warned(json!({ "reusable": true })), ["reusable"]);
    assert_eq!(
        warned(
            json!({ "reusable": true, "connection_username": "{sso_username}", "connection_password": "{sso_cred}" })
        ),
        none
    );
    assert_eq!(
        warned(json!({ "max_sessions_per_server": 2, "connection_password": { "secret": "s" } })),
        ["max_sessions_per_server"]
    );
    assert_eq!(warned(json!({ "max_servers": 2, "minimum_available_sessions": 3 })), ["max_servers"]);
    assert_eq!(warned(json!({ "require_checkin": true })), ["require_checkin"]);
    assert_eq!(warned(json!({ "require_checkin": true, "startup_script": "'{checkin_jwt}'" })), none);
    assert_eq!(
        warned(json!({ "require_checkin": true, "startup_script": "'{checkin_jwt}'", "boot_deadline": "1m" })),
        ["boot_deadline"]
    );
    let joins = |script: &str| {
        warned(json!({ "ad_directory": "corp", "ad_computer_ou_dn": "OU=x,DC=y", "startup_script": script }))
    };
    assert_eq!(joins("'{domain}'"), ["ad_directory"]);
    assert_eq!(joins("'{domain}' '{ad_join_credential}'"), ["startup_script"]);
}

#[test]
fn a_domain_join_is_all_or_nothing() {
    let with = |fields: Value| {
        let mut all = json!({ "name": "aws", "provider": "aws" });
        all.as_object_mut().unwrap().extend(object(fields));
        config(all)
    };
    let full = json!({ "ad_directory": "corp", "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example",
        "ad_recursive_cleanup": true, "startup_script": "join '{domain}' '{ad_join_credential}'" });
    let spec = with(full.clone()).unwrap();
    let join = spec.domain_join.clone().unwrap();
    assert_eq!(join.directory.as_str(), "corp");
    assert_eq!((join.ou.as_str(), join.recursive_cleanup), ("OU=Desks,DC=corp,DC=example", true));
    assert_eq!(ConfigSpec::try_from(spec.to_json()).unwrap(), spec);
    let missing = with(json!({ "ad_directory": "corp" })).unwrap_err();
    assert_eq!(missing.len(), 1);
    let said = missing[0].to_string();
    assert!(said.starts_with("ad_computer_ou_dn: given nothing; required: the organisational unit"), "{said}");
    for (wrong, count) in [("   ", 1), ("OU=a\u{7}", 1), ("OU=x", 0)] {
        let given = with(json!({ "ad_directory": "corp", "ad_computer_ou_dn": wrong }));
        assert_eq!(given.map_or_else(|problems| problems.len(), |_| 0), count, "{wrong:?}");
    }
    // All mistakes at once, and the directory's own is told once.
    let wrong =
        with(json!({ "ad_directory": "a b", "ad_computer_ou_dn": 7, "ad_recursive_cleanup": "no" })).unwrap_err();
    let about: Vec<&str> = wrong.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(about, ["ad_directory", "ad_computer_ou_dn", "ad_recursive_cleanup"]);
}

#[test]
fn i_22_patterns_of_names_that_could_be_wrong_are_refused() {
    let said = |text: &str| text.parse::<NamePattern>().err();
    for right in [
        "kasm-{random}",
        "desk-{number}",
        "{number}-desk",
        "W{random}",
        "a12345678{random}",
        "a123456789{number}",
        "X{number}Y",
    ] {
        assert_eq!(said(right), None, "{right}");
        assert_eq!(right.parse::<NamePattern>().unwrap().to_string(), right);
    }
    use kasm_autoscale_core::config::InvalidPattern::{
        Character, Digits, Hyphen, NumberTooShort, Placeholder, RandomTooShort,
    };
    for (wrong, why) in [
        ("", Placeholder),
        ("kasm", Placeholder),
        ("{random}{number}", Placeholder),
        ("a{number}{number}", Placeholder),
        ("{Random}a", Placeholder),
        ("a_{random}", Character),
        ("a b{random}", Character),
        ("a.{number}", Character),
        ("\u{e9}{number}", Character),
        ("{{number}}", Character),
        ("-a{random}", Hyphen),
        ("{random}a-", Hyphen),
        ("{random}", Digits),
        ("1-{number}", Digits),
        ("a123456789{random}", RandomTooShort),
        ("a1234567890{number}", NumberTooShort),
    ] {
        assert_eq!(said(wrong), Some(why), "{wrong}");
    }
    assert_eq!(NamePattern::default().to_string(), "kasm-{random}");
}

proptest! {
    #[test]
    fn i_22_names_are_valid_and_never_the_same(
        before in "[a-zA-Z0-9-]{0,10}", after in "[a-zA-Z0-9-]{0,5}", number: bool, pool: [u8; 16], serials in prop::collection::btree_set(0_u64..1 << 62, 2..20)
    ) {
        let text = format!("{before}{}{after}", if number { "{number}" } else { "{random}" });
        let Ok(pattern) = text.parse::<NamePattern>() else { return Ok(()) };
        let key = |serial| ServerKey { pool: PoolId::from_bytes(pool), server: ServerId::new(serial) };
        let last = pattern.last_serial();
        let small: BTreeSet<u64> = serials.iter().map(|serial| serial % (last + 1)).collect();
        let mut names = BTreeSet::new();
        for serial in &small {
            let name = pattern.name_of(&key(*serial)).unwrap();
            let name = name.as_str();
            prop_assert!((2..=15).contains(&name.len()), "{}", name);
            prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{}", name);
            prop_assert!(!name.starts_with('-') && !name.ends_with('-') && name.bytes().any(|b| b.is_ascii_alphabetic()), "{}", name);
            prop_assert!(name.starts_with(&before) && name.ends_with(&after));
            names.insert(name.to_ascii_lowercase());
        }
        if number {
            prop_assert_eq!(names.len(), small.len());
            prop_assert_eq!(pattern.name_of(&key(last)).unwrap().as_str().len(), 15);
            prop_assert_eq!(pattern.name_of(&key(last + 1)), None);
        }
        // Whoever makes commands of his own gets no panic either.
        let _ = pattern.name_of(&key(u64::MAX));
    }

    #[test]
    fn no_text_makes_a_pattern_panic(text in ".{0,40}") {
        if let Ok(pattern) = text.parse::<NamePattern>() {
            prop_assert_eq!(pattern.to_string(), text);
        }
    }

    #[test]
    fn i_22_the_default_pattern_gives_the_names_of_old(pool: [u8; 16], serial in 0_u64..1 << 62) {
        let key = ServerKey { pool: PoolId::from_bytes(pool), server: ServerId::new(serial) };
        prop_assert_eq!(NamePattern::default().name_of(&key), Some(key.machine_name()));
    }
}

#[test]
fn fields_left_out_have_the_values_of_the_table_in_the_documentation() {
    let spec = config(json!({ "name": "aws", "provider": "aws" })).unwrap();
    let text = format!("{spec:?}");
    let read: ConfigSpec = serde_json::from_value(json!({
        "name": "aws", "enabled": true, "zone": "default", "connection_type": "rdp", "connection_port": 3389,
        "connection_address": "", "connection_username": "", "connection_password": null, "connection_info": {},
        "reusable": false, "minimum_available_sessions": 0, "max_sessions_per_server": 1, "max_servers": 100,
        "downscale_backoff": "30m", "require_checkin": false, "boot_deadline": "15m", "provider": "aws", "machine": {},
        "startup_script": " \n", "upstream_auth_address": "",
    }))
    .unwrap();
    assert_eq!(format!("{read:?}"), text);
    let ports = [("rdp", 3389), ("vnc", 5901), ("ssh", 22), ("kasmvnc", 6901)];
    for (word, port) in ports {
        assert_eq!(
            config(json!({ "name": "a", "provider": "b", "connection_type": word })).unwrap().connection.port,
            port
        );
    }
}

#[test]
fn pools_are_read_and_refused_in_the_same_way() {
    let spec = pool(json!({ "name": "desktops" })).unwrap();
    assert_eq!(
        (spec.placement, spec.queue_deadline, spec.queue_max),
        (PlacementPolicy::Spread, Duration::from_secs(600), 10_000)
    );
    assert_eq!(spec.keepalive_expiry, Duration::from_secs(3600));
    let said = |value: Value| pool(value).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(said(json!({})), ["name: given nothing; required: the pool's name"]);
    let wrong = json!({ "name": "a", "type": "agent", "placement": "random", "queue_deadline": 0, "queue_max": -1, "keepalive_expiry": "9s" });
    let about: Vec<String> = said(wrong).iter().map(|text| text.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(about, ["type", "placement", "queue_deadline", "queue_max", "keepalive_expiry"]);
}

#[test]
fn a_mistake_in_one_field_does_not_hide_that_another_is_missing() {
    let given = object(json!({ "image_id": 5 }));
    let mut fields = Fields::new(&given);
    fields.text("image_id");
    let image = fields.text("image");
    assert_eq!(fields.require("image", image, "the image"), None);
    let about: Vec<String> = fields.finish().into_iter().map(|problem| problem.path).collect();
    assert_eq!(about, ["image_id", "image"]);
    assert_eq!(Problem::new("a", "b", "c").below("machine").path, "machine.a");
    assert_eq!(Problem::new("", "b", "c").below("machine").path, "machine");
}

#[test]
fn many_fields_that_nobody_knows_are_one_mistake() {
    let given: JsonObject = (0..1000).map(|number| (format!("k{number:04}"), json!(number))).collect();
    let about: Vec<String> = Fields::new(&given).finish().iter().map(ToString::to_string).collect();
    assert_eq!(about.len(), 51);
    assert_eq!(about[49], "k0049: given 49; no such field; the fields are ");
    assert_eq!(about[50], ": given 950 more fields; no such fields");
}

#[test]
fn lists_of_texts_tell_which_item_is_wrong() {
    let given = object(json!({ "ids": ["a", 7, ""], "names": "a" }));
    let mut fields = Fields::new(&given);
    assert_eq!(fields.texts("ids").unwrap(), ["a"]);
    assert_eq!(fields.texts("names"), None);
    let about: Vec<String> = fields.finish().iter().map(ToString::to_string).collect();
    assert_eq!(
        about[..2],
        ["ids[1]: given 7; a text that is not empty", "ids[2]: given \"\"; a text that is not empty"]
    );
    assert_eq!(about[2..], ["names: given \"a\"; a list of texts"]);
}

#[test]
fn the_nearest_name_is_suggested_only_if_it_is_near() {
    assert_eq!(nearest("zoen", &["zone", "name"]), Some("zone"));
    assert_eq!(nearest("zonne", &["zone", "zones"]), Some("zone"));
    assert_eq!(nearest("colour", &["zone", "name"]), None);
    // Two letters are near to everything.
    assert_eq!(nearest("ab", &["cd"]), None);
}

fn specs() -> impl Strategy<Value = Value> {
    let name = "[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}";
    let password =
        prop_oneof![Just(Value::Null), Just(json!("{sso_cred}")), name.prop_map(|name| json!({ "secret": name }))];
    let username = proptest::option::of("[a-z. \\\\@]{0,20}(\\{sso_username\\})?[a-z]{0,5}");
    let connection = (
        prop::sample::select(vec!["rdp", "vnc", "ssh", "kasmvnc"]),
        proptest::option::of(1..=65535_u16),
        ".{0,20}",
        username,
        password,
    );
    let numbers = (0..=1_000_000_u32, 1..=1000_u32, 0..=1_000_000_u32, 0..=604_800_000_u64, 1000..=86_400_000_u64);
    let rest = (
        any::<[bool; 3]>(),
        proptest::option::of("[a-z '\\$]{0,30}"),
        proptest::collection::btree_map("[a-z]{1,5}", any::<i64>(), 0..4),
    );
    (name, name, name, connection, numbers, rest).prop_map(|(name, zone, provider, connection, numbers, (flags, script, machine))| {
        json!({
            "name": name, "zone": zone, "provider": provider,
            "connection_type": connection.0, "connection_port": connection.1, "connection_address": connection.2,
            "connection_username": connection.3, "connection_password": connection.4, "connection_info": machine.clone(),
            "minimum_available_sessions": numbers.0, "max_sessions_per_server": numbers.1, "max_servers": numbers.2,
            "downscale_backoff": format!("{}ms", numbers.3), "boot_deadline": format!("{}ms", numbers.4),
            "enabled": flags[0], "reusable": flags[1], "require_checkin": flags[2], "startup_script": script, "machine": machine,
        })
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_as_it_was(value in specs()) {
        let spec = config(value).unwrap();
        prop_assert_eq!(&config(spec.to_json()).unwrap(), &spec);
        let stored = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(serde_json::from_str::<ConfigSpec>(&stored).unwrap(), spec);
    }

    #[test]
    fn a_pool_is_read_as_it_was_written(queue in 1..=86_400_u64, most in 0..=1_000_000_u32, keep in 10..=2_592_000_u64, pack: bool) {
        let placement = if pack { "pack" } else { "spread" };
        let spec = pool(json!({ "name": "a", "type": "server", "placement": placement, "queue_deadline": queue, "queue_max": most, "keepalive_expiry": keep })).unwrap();
        prop_assert_eq!(pool(spec.to_json()).unwrap(), spec);
    }

    #[test]
    fn spans_are_read_as_they_are_shown(millis in 0..10_000_000_000_u64) {
        let span = Duration::from_millis(millis);
        prop_assert_eq!(Span::parse(&Span(span).to_string()).unwrap().0, span);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,40}", key in "[a-z_]{1,12}") {
        let _ = Span::parse(&text);
        let said = said_of(&key, &json!(text));
        prop_assert!(said.iter().all(|line| line.chars().count() < 700), "{said:?}");
    }
}

#[test]
fn instants_and_spans_do_not_wrap_round() {
    let last = Timestamp::from_millis(u64::MAX);
    assert_eq!(last + Duration::MAX, last);
    assert_eq!(Timestamp::default() - Duration::from_secs(1), Timestamp::default());
    assert_eq!(Timestamp::default().since(last), Duration::ZERO);
    assert_eq!(Timestamp::from_secs(u64::MAX), last);
    for wrong in
        ["", "s", "1", "1x", "-1s", "1.5h", "1 h", "1s 1m", "99999999999999999999s", "18446744073709551615d", "１s"]
    {
        assert_eq!(Span::parse(wrong).is_some(), wrong == "1", "{wrong:?}");
    }
}

#[test]
fn connections_know_single_sign_on() {
    let spec = |username: Value, password: Value| {
        config(
            json!({ "name": "a", "provider": "b", "connection_username": username, "connection_password": password }),
        )
        .unwrap()
    };
    assert!(spec(json!("CORP\\{sso_username}"), json!("{sso_cred}")).connection.is_single_sign_on());
    assert!(!spec(json!("admin"), json!("{sso_cred}")).connection.is_single_sign_on());
    assert!(!spec(json!("{sso_username}"), json!(null)).connection.is_single_sign_on());
    assert_eq!(spec(json!(null), json!(null)).connection.password, ConnectionPassword::Prompt);
    assert_eq!(ConnectionType::KasmVnc.to_string(), "kasmvnc");
    assert!("".parse::<ProviderName>().is_err());
}
