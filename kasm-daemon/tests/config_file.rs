//! The config file: golden tables of bad files and their messages, hostile files, and secrets that never come out.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs};

use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::id::{DeploymentId, DirectoryName};
use kasm_autoscale_core::ports::Secrets;
use kasm_autoscale_core::time::Timestamp;
use kasm_daemon::api::Rate;
use kasm_daemon::file::{Checks, DaemonConfig, LdapConfig, Mistake, ProviderKind, Surroundings, Warning, load};
use kasm_daemon::secrets::Environment;
use kasm_providers::simulated::SimulatedSettings;
use proptest::prelude::*;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

/// A secret that must not be seen.
const CANARY: &str = "canary-Wb3x9Qe7Lr2Tz8Vn4Mk6Hs1Jd5Fg0";

/// The environment of all files here.
fn surroundings() -> Surroundings {
    let variables = [
        ("KASM_DEPLOYMENT_KEY", "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF".to_owned()),
        ("KASM_PORTAL_TOKEN", CANARY.to_owned()),
        ("PASSWORD", CANARY.to_owned()),
        ("KASM_LDAP_USERS_PASSWORD", CANARY.to_owned()),
        ("KASM_LDAP_COMPUTERS_PASSWORD", CANARY.to_owned()),
        ("AZURE_CLIENT_SECRET", CANARY.to_owned()),
        ("KASM_ADMIN_PASSWORD_KEY", CANARY.to_owned()),
        ("SHORT", "Wb3x9Q".to_owned()),
        ("EMPTY", String::new()),
        ("NOT_HEX", format!("{CANARY}{}", "x".repeat(64 - CANARY.len()))),
    ];
    Surroundings {
        environment: Environment::of(variables),
        kinds: vec![ProviderKind::Simulated, ProviderKind::Aws, ProviderKind::Azure],
        now: Timestamp::from_secs(1_800_000_000),
    }
}

type Loaded = Result<(DaemonConfig, Vec<Warning>), Vec<Mistake>>;

/// Reads a file; providers and configs have no mistakes but those that the fields `bad` say.
fn read(path: &Path, surroundings: &Surroundings) -> Loaded {
    let bad = |object: &kasm_autoscale_core::fields::JsonObject, at: &str| {
        let given = object.get("bad").map(ToString::to_string);
        given.map(|given| Problem::new(format!("{at}bad"), given, "no such field")).into_iter().collect()
    };
    let mut checks = Checks {
        provider: &mut |_, provider| bad(&provider.settings, ""),
        ldap: &mut check_ldap,
        config: &mut |check| bad(&check.spec.machine, "machine."),
    };
    load(path, surroundings, &mut checks)
}

/// As those who know them check LDAP configs: they ask nobody.
fn check_ldap(_: &DirectoryName, config: &LdapConfig) -> Vec<Problem> {
    let deployment = DeploymentId::from_bytes([0; 16]);
    kasm_daemon::directories::build(config, deployment, &surroundings().environment).err().unwrap_or_default()
}

/// A folder with one file in it.
fn file_of(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("daemon.toml");
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn said(loaded: &Loaded) -> String {
    let mut text = String::new();
    match loaded {
        Ok((_, warnings)) => warnings.iter().for_each(|warning| _ = writeln!(text, "{warning}")),
        Err(mistakes) => mistakes.iter().for_each(|mistake| _ = writeln!(text, "{mistake}")),
    }
    text
}

/// Files in `tests/data/config`, and beside each what is said of it. `KASM_BLESS=1` writes what is said now.
#[test]
fn every_message_is_as_it_was_approved() {
    let folder = Path::new("tests/data/config");
    let mut names: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    names.sort();
    assert!(names.len() >= 10, "there are {} files", names.len());
    let mut wrong = String::new();
    for path in names {
        if !cfg!(feature = "script-check") && path.ends_with("warnings.toml") {
            continue;
        }
        let found = said(&read(&path, &surroundings()));
        let golden = path.with_extension("txt");
        if env::var_os("KASM_BLESS").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if found != expected {
            _ = writeln!(wrong, "--- {} says\n{found}--- expected\n{expected}", path.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}KASM_BLESS=1 makes it so");
}

/// The examples, with the settings of their providers checked by those who know them.
#[test]
fn the_examples_have_no_mistakes() {
    for name in ["simulated", "aws", "azure", "active-directory"] {
        let path = PathBuf::from(format!("examples/{name}.toml"));
        let mut checks = Checks {
            provider: &mut |_, provider| match provider.kind {
                ProviderKind::Simulated => SimulatedSettings::from_json(&provider.settings).err().unwrap_or_default(),
                ProviderKind::Aws | ProviderKind::Azure => Vec::new(),
            },
            ldap: &mut check_ldap,
            config: &mut |_| Vec::new(),
        };
        let loaded = load(&path, &surroundings(), &mut checks);
        let no_token = "examples/simulated.toml:1:1: warning: token: given no token; ";
        // That is how machines join, and the warning says why it is no harm.
        let in_script = "startup_script: given {ad_join_credential}; every process";
        let wanted =
            |line: &&str| !(line.starts_with(no_token) || name == "active-directory" && line.contains(in_script));
        let rest = said(&loaded).lines().filter(wanted).map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(rest, [""; 0], "{name}");
        let config = loaded.unwrap().0;
        let spec = &config.pools[0].configs[0];
        assert_eq!((spec.minimum_available_sessions, spec.max_sessions_per_server.get()), (10, 4), "{name}");
        assert_eq!(
            config.store.0,
            PathBuf::from("examples").join(if name == "simulated" { "simulated.db" } else { "kasm.db" })
        );
    }
}

/// The example of Azure, with its provider made, and its machine settings checked by that.
#[cfg(feature = "azure")]
#[tokio::test]
async fn the_example_of_azure_is_taken_by_its_provider() {
    let (config, _) = read(Path::new("examples/azure.toml"), &surroundings()).unwrap();
    let declared = config.providers.values().next().unwrap();
    let deployment = DeploymentId::from_bytes([0; 16]);
    let provider = kasm_daemon::providers::build(declared, deployment, &surroundings().environment).await.unwrap();
    assert_eq!(provider.describe().kind, "azure");
    assert_eq!(provider.check(&config.pools[0].configs[0].machine, 4000), []);
}

#[test]
fn an_unset_variable_is_named_and_an_unknown_kind_is_explained() {
    let environment = Environment::of([("X", "x")]);
    let bare = Surroundings { environment, kinds: vec![ProviderKind::Simulated], ..surroundings() };
    let text = said(&read(Path::new("examples/aws.toml"), &bare));
    let lines: Vec<&str> = text.lines().map(|line| line.split_once(": error: ").unwrap().1).collect();
    let unset = "it is not set; set it for the daemon, or keep the secret in a file";
    let expected = [
        format!("deployment_key: given environment variable KASM_DEPLOYMENT_KEY; {unset}"),
        format!("token[0].secret: given environment variable KASM_PORTAL_TOKEN; {unset}"),
        "provider.aws-west.kind: given \"aws\"; this program was built without it; build it with \
         `cargo build --release -p kasm-daemon --features aws`"
            .to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn what_was_read_is_what_was_written() {
    let (_folder, path) = file_of(
        br#"
        listen = "0.0.0.0:80"
        plain_http_behind_proxy = true
        deployment_key = { env = "KASM_DEPLOYMENT_KEY" }
        store.path = "/var/lib/kasm.db"
        log = { filter = "info,kasm_daemon=debug", format = "json" }
        limits = { probes = 7, directory_calls = 3, shutdown_grace = "1m", token_rate = 9, user_sessions = 2, audit_entries = 5000 }
        logins = { idle = "5m", longest = "1h" }
        secrets.desktop = { env = "PASSWORD" }
        token = [{ name = "a", role = "admin", secret = { env = "KASM_PORTAL_TOKEN" } }]
        [provider.west]
        kind = "aws"
        region = "us-west-2"
        credentials = { access_key_id = "AKIA", secret_access_key = { env = "PASSWORD" } }
        [ldap.corp]
        url = "ldaps://dc.corp.example"
        bind_dn = "CN=kasm,DC=corp,DC=example"
        bind_password = { env = "PASSWORD" }
        search_base = "DC=corp,DC=example"
        [[workspaces]]
        name = "desk"
        pool = "p"
        sso_domain = 'CORP\'
        ldap = ["corp"]
        [[pool]]
        name = "p"
        queue_max = 5
        [[pool.config]]
        name = "c"
        provider = "west"
        connection_username = "desktop"
        connection_password = { secret = "desktop" }
        "#,
    );
    let mut seen = Vec::new();
    let mut checks = Checks {
        provider: &mut |_, _| Vec::new(),
        ldap: &mut check_ldap,
        config: &mut |check| {
            seen.push(check.secrets.secret(&"desktop".parse().unwrap()).unwrap().expose_secret().to_owned());
            Vec::new()
        },
    };
    let (config, warnings) = load(&path, &surroundings(), &mut checks).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(seen, [CANARY]);
    assert_eq!(config.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.store.0, Path::new("/var/lib/kasm.db"));
    assert_eq!((config.limits.probes, config.limits.provider_calls, config.limits.directory_calls), (7, 32, 3));
    let callers = config.limits.callers;
    assert_eq!((callers.token, callers.user_sessions), (Rate::per_second(9, 2000), 2));
    assert_eq!(callers.address, Rate::per_second(200, 400));
    assert_eq!((config.logins.idle.as_secs(), config.logins.longest.as_secs()), (300, 3600));
    let workspace = &config.workspaces[0];
    assert_eq!(
        (workspace.friendly_name.as_str(), workspace.sso_domain.name_of("ann@corp.example")),
        ("desk", "CORP\\ann".into())
    );
    let (name, ldap) = config.ldap.first_key_value().unwrap();
    assert_eq!((name.as_str(), ldap.place.line, ldap.settings.len()), ("corp", 15, 3));
    assert_eq!((config.limits.shutdown_grace.as_secs(), config.limits.audit_entries), (60, 5000));
    let token = config.tokens[0].entry(&surroundings().environment).unwrap();
    assert_eq!(token.sha256, <[u8; 32]>::from(Sha256::digest(CANARY)));
    let (name, provider) = config.providers.first_key_value().unwrap();
    assert_eq!((name.as_str(), provider.place.line), ("west", 11));
    assert_eq!(serde_json::to_string(&provider.settings).unwrap(), r#"{"region":"us-west-2"}"#);
    assert_eq!(provider.credentials.as_ref().unwrap().access_key_id, "AKIA");
    assert_eq!(serde_json::to_string(&config.pools[0].settings).unwrap(), r#"{"name":"p","queue_max":5}"#);
    assert!(!format!("{config:?}").contains(CANARY));
}

/// Wherever a secret is put by mistake, it is not repeated.
#[test]
fn a_secret_in_the_wrong_place_is_never_shown() {
    let tables = [
        "",
        "[token_]",
        "[[token]]",
        "[secrets]",
        "[provider.p]\nkind = \"aws\"",
        "[provider.p.credentials]",
        "[pool_]",
        "[[pool]]\n[[pool.config]]",
        "[ldap.corp]",
        "[[workspaces]]",
    ];
    let names = [
        "deployment_key",
        "secret",
        "sha256",
        "password",
        "connection_password",
        "credentials",
        "secret_access_key",
        "bind_password",
        "bind_pasword",
        "session_token",
        "acess_key",
        "connection_info",
        "conection_pasword",
        "anything",
    ];
    let values = [
        format!("'{CANARY}'"),
        format!("{{ file_ = '{CANARY}' }}"),
        format!("{{ env = '{CANARY}' }}"),
        format!("{{ secret = '{CANARY}' }}"),
        format!("['{CANARY}']"),
        CANARY.to_owned(),
        format!("'{CANARY}"),
        format!("'''{CANARY}"),
    ];
    for table in tables {
        for name in names {
            for value in &values {
                let (_folder, path) = file_of(format!("{table}\n{name} = {value}\n").as_bytes());
                let loaded = read(&path, &surroundings());
                assert!(loaded.is_err(), "{table} {name} = {value}");
                let text = format!("{}{loaded:?}", said(&loaded));
                assert!(!text.contains(CANARY), "{table} {name} = {value}\n{text}");
            }
        }
    }
}

/// Every mistake is in the file, at a line that is there, and is one line itself.
fn check_places(content: &[u8]) {
    let (_folder, path) = file_of(content);
    let loaded = read(&path, &surroundings());
    let lines = content.split(|byte| *byte == b'\n').count();
    let text = said(&loaded);
    let places = match &loaded {
        Ok((_, warnings)) => warnings.iter().map(|warning| &warning.place).collect::<Vec<_>>(),
        Err(mistakes) => mistakes.iter().map(|mistake| &mistake.place).collect(),
    };
    assert!(loaded.is_ok() || !places.is_empty(), "refused without a reason");
    assert_eq!(text.lines().count(), places.len());
    for place in places {
        assert_eq!(*place.file, *path);
        assert!((1..=lines).contains(&place.line) && place.column >= 1, "{place:?} of {lines} lines");
    }
    assert!(!text.contains(CANARY) && !format!("{loaded:?}").contains(CANARY));
}

fn example() -> Vec<u8> {
    fs::read("examples/aws.toml").unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(content in proptest::collection::vec(any::<u8>(), 0..400)) {
        check_places(&content);
    }

    #[test]
    fn any_text_is_read_or_refused(content in "([a-z_.\\[\\]{}='\",0-9# \n\r\u{e4}]|\"\"\"|'''|\\[\\[pool\\]\\]\n|token|secrets|provider|startup_script = ){0,60}") {
        check_places(content.as_bytes());
    }

    #[test]
    fn a_damaged_example_is_read_or_refused(edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..40, "[a-z\\[\\]{}='\"\n .0-9]{0,3}"), 1..6)) {
        let mut content = example();
        for (index, length, text) in &edits {
            let start = index.index(content.len());
            let end = (start + length).min(content.len());
            content.splice(start..end, text.bytes());
        }
        check_places(&content);
    }

    #[test]
    fn an_example_without_some_lines_is_read_or_refused(keep in proptest::collection::vec(proptest::bool::weighted(0.85), 200)) {
        let content = String::from_utf8(example()).unwrap();
        let kept = content.lines().zip(keep.iter().cycle()).filter(|(_, keep)| **keep).map(|(line, _)| line);
        check_places(kept.collect::<Vec<_>>().join("\n").as_bytes());
    }
}
