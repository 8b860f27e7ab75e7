//! What the daemon reads and writes beside its API: config files, first words of servers, files for clients.

use std::cell::OnceCell;
use std::path::PathBuf;

use kasm_autoscale_core::config::ConnectionType;
use kasm_autoscale_core::fields::JsonObject;
use kasm_autoscale_core::id::DeploymentId;
use kasm_autoscale_core::time::Timestamp;
use kasm_daemon::connect::{Credentials, Target as Connection, guacamole, rdp};
use kasm_daemon::file::{Checks, LogFormat, ProviderKind, Surroundings, load};
use kasm_daemon::probe::{self, Verdict as Judgement, judge_ssh, judge_vnc};
use kasm_daemon::secrets::Environment;
use secrecy::SecretString;
use serde_json::json;

use crate::generator::Shape;
use crate::{Target, Verdict, is_worded, joined, texts};

/// A secret that must not be seen.
const CANARY: &str = "canary-Wb3x9Qe7Lr2Tz8Vn4Mk6Hs1Jd5Fg0";

/// Config files: read whole, or refused with the place of every mistake, in lines that show no secret.
pub const FILE: Target = Target {
    name: "file",
    shape: Shape::Bytes,
    examples: || {
        let good = include_str!("../../../kasm-daemon/tests/data/config/good.toml");
        let all = [
            good,
            include_str!("../../../kasm-daemon/tests/data/config/ldap.toml"),
            include_str!("../../../kasm-daemon/tests/data/config/pools.toml"),
            include_str!("../../../kasm-daemon/tests/data/config/providers.toml"),
            include_str!("../../../kasm-daemon/tests/data/config/tokens.toml"),
            include_str!("../../../kasm-daemon/tests/data/config/tls_files.toml"),
            SMALL,
            SMALL,
        ];
        all.map(|text| text.as_bytes().to_vec()).into()
    },
    words: &[
        "[store]\n",
        "[[pool]]\n",
        "[[pool.config]]\n",
        "[[token]]\n",
        "[ldap.corp]\n",
        "[provider.cloud]\n",
        "[secrets]\n",
        "[logins]\n",
        "[tls]\n",
        "path = ",
        "env = \"PASSWORD\"",
        "{ env = \"KASM_DEPLOYMENT_KEY\" }",
        "{ file = \"x\" }",
        "kind = \"simulated\"",
        "\"\"\"\n",
        "'''\n",
        "startup_script = ",
        "name = \"a\"\n",
        "= 1\n",
        "= true\n",
        "= []\n",
        "= {}\n",
        "0x7f",
        "1979-05-27",
        "inf",
        "\\u0000",
        "#",
        "127.0.0.1:1",
        "startup_script_file = \"start.ps1\"\n",
        CANARY,
        "sha256 = ",
    ],
    check: check_file,
    inputs: 10_000,
};

const SMALL: &str = r#"deployment_key = { env = "KASM_DEPLOYMENT_KEY" }
[store]
path = "state"
[provider.cloud]
kind = "simulated"
[secrets]
rdp = { env = "PASSWORD" }
[[pool]]
name = "desktops"
[[pool.config]]
name = "west"
provider = "cloud"
connection_password = { secret = "rdp" }
startup_script = "echo '{server_id}'"
"#;

fn check_file(input: &[u8]) -> Verdict {
    thread_local! {
        static FOLDER: OnceCell<tempfile::TempDir> = const { OnceCell::new() };
    }
    let path: PathBuf = FOLDER.with(|folder| {
        let folder = folder.get_or_init(|| {
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("start.ps1"), "echo '{domain}'").expect("a file");
            folder
        });
        folder.path().join("daemon.toml")
    });
    std::fs::write(&path, input).expect("a file");
    let key = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF".to_owned();
    let secret = |name: &'static str| (name, CANARY.to_owned());
    let environment = Environment::of([
        ("KASM_DEPLOYMENT_KEY", key),
        secret("PASSWORD"),
        secret("KASM_PORTAL_TOKEN"),
        secret("KASM_LDAP_USERS_PASSWORD"),
    ]);
    let kinds = vec![ProviderKind::Simulated, ProviderKind::Aws, ProviderKind::Azure];
    let surroundings = Surroundings { environment, kinds, now: Timestamp::from_secs(1_800_000_000) };
    let mut ldap = |_: &_, config: &kasm_daemon::file::LdapConfig| {
        let deployment = DeploymentId::from_bytes([0; 16]);
        kasm_daemon::directories::build(config, deployment, &surroundings.environment).err().unwrap_or_default()
    };
    let mut checks = Checks { provider: &mut |_, _| vec![], ldap: &mut ldap, config: &mut |_| vec![] };
    let is_shown = input.windows(8).any(|part| CANARY.as_bytes().windows(8).any(|piece| piece == part));
    let lines = input.split(|byte| *byte == b'\n').count();
    match load(&path, &surroundings, &mut checks) {
        Ok((config, warnings)) => {
            assert!(config.pools.iter().all(|pool| !pool.configs.is_empty() || pool.config_places.is_empty()));
            assert!(matches!(config.log.format, LogFormat::Text | LogFormat::Json));
            for warning in warnings {
                expect_line(&warning.to_string(), warning.place.line, lines, is_shown, input.len());
            }
            assert!(is_shown || !format!("{config:?}").contains(CANARY), "a secret in the config's own debug form");
            Verdict::Taken
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a mistake");
            for mistake in mistakes {
                expect_line(&mistake.to_string(), mistake.place.line, lines, is_shown, input.len());
            }
            Verdict::Refused
        }
    }
}

fn expect_line(text: &str, line: usize, lines: usize, is_shown: bool, length: usize) {
    is_worded(text, 1500 + 2 * length);
    assert!((1..=lines).contains(&line), "line {line} of {lines}: {text}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(is_shown || !text.contains(CANARY), "a secret in {text}");
}

/// The first words of a server: the verdict is never taken back by what follows, and its words are short and printable.
pub const PROBE: Target = Target {
    name: "probe",
    shape: Shape::Bytes,
    examples: || {
        let rdp = [3, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, 2, 0, 8, 0, 2, 0, 0, 0];
        let refusal = [3, 0, 0, 19, 14, 0xd0, 0, 0, 0, 0, 0, 3, 0, 8, 0, 5, 0, 0, 0];
        let tls = [22, 3, 3, 0, 6, 2, 0, 0, 2, 3, 3];
        let alert = [21, 3, 3, 0, 2, 2, 40];
        vec![
            rdp.to_vec(),
            refusal.to_vec(),
            tls.to_vec(),
            alert.to_vec(),
            b"RFB 003.008\n".to_vec(),
            b"RFB 003.003\n\0\0\0\x01".to_vec(),
            b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
            b"Welcome\r\nSSH-1.99-x y\r\n".to_vec(),
            b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
            b"Not allowed at this time\r\n".to_vec(),
        ]
    },
    words: &[
        "SSH-2.0-",
        "SSH-1.5-",
        "RFB 003.",
        "\n",
        "\r\n",
        "\u{3}\u{0}\u{0}",
        "\u{16}\u{3}\u{3}",
        "\u{0}",
        "003.889",
    ],
    check: |input| {
        let judges: [fn(&[u8]) -> Judgement; 4] = [judge_ssh, judge_vnc, probe::rdp::judge, probe::tls::judge];
        let mut is_ready = false;
        for (index, judge) in judges.iter().enumerate() {
            let mut decided = None;
            // As it comes in, byte by byte.
            for end in 0..=input.len().min(600) {
                let now = judge(&input[..end]);
                match (&decided, &now) {
                    (Some(Judgement::Ready), now) => {
                        assert_eq!(*now, Judgement::Ready, "judge {index} takes it back after {end} bytes")
                    }
                    (Some(Judgement::NotReady(_)), now) => {
                        assert!(
                            matches!(now, Judgement::NotReady(_)),
                            "judge {index} changes its mind after {end} bytes"
                        );
                    }
                    _ => {}
                }
                if let Judgement::NotReady(said) = &now {
                    is_worded(said, 400);
                    assert!(said.chars().all(|c| !c.is_control()), "{said:?}");
                }
                if now != Judgement::More {
                    decided.get_or_insert(now);
                }
            }
            is_ready |= decided == Some(Judgement::Ready);
        }
        if is_ready { Verdict::Taken } else { Verdict::Refused }
    },
    inputs: 300_000,
};

/// Files for clients: a host, a user and free settings. Every line of a `.rdp` file is one that we write, none is a value's; no
/// password stands in it.
pub const RDP: Target = Target {
    name: "rdp",
    shape: Shape::Bytes,
    examples: || {
        let settings = json!({ "guac": { "type": "rdp", "settings": {
            "remote-app": "||Calculator", "remote-app-args": "/q \"a b\"", "remote-app-dir": "C:\\Work", "ignore-cert": "true",
            "security": "tls", "enable-wallpaper": true, "enable-theming": false, "load-balance-info": "tsv://x", "hostname": "evil" } } })
        .to_string();
        vec![
            joined(&["192.0.2.7", "CORP\\ann", &settings]),
            joined(&["2001:db8::1", "ü", "{}"]),
            joined(&["desk-1.corp.example", "ann", r#"{"guac":{}}"#]),
        ]
    },
    words: &[
        "\r\n",
        "\n",
        ":s:",
        ":i:",
        "full address",
        "password",
        "\u{2028}",
        "\u{85}",
        "guac",
        "settings",
        "remote-app",
        "null",
        "[]",
        "||",
    ],
    check: |input| {
        let [host, user, info] = texts::<3>(input);
        let Ok(info) = serde_json::from_str::<JsonObject>(&info) else { return Verdict::Refused };
        // Whoever writes a password into his settings finds it in his file.
        let settings = serde_json::to_string(&info).expect("it was JSON");
        let is_shown = [&host, &user, &settings].iter().any(|text| text.contains(CANARY));
        let target = |info: JsonObject| Connection {
            kind: ConnectionType::Rdp,
            host: Some(host.clone()),
            port: Some(3389),
            credentials: Credentials::Static,
            username: Some(user.clone()),
            password: Some(SecretString::from(CANARY.to_owned())),
            info,
        };
        if let Ok(connection) = guacamole::render(target(info.clone())) {
            assert_eq!(
                connection.parameters.get("hostname"),
                Some(&host),
                "who is connected to is not the settings' to say"
            );
            assert!(is_shown || connection.parameters.values().all(|value| !value.contains(CANARY)));
        }
        match rdp::render(&target(info)) {
            Ok(bytes) => {
                expect_lines(&bytes, is_shown);
                Verdict::Taken
            }
            Err(problems) => {
                assert!(!problems.is_empty(), "refused without a mistake");
                problems.iter().for_each(|problem| is_worded(&problem.to_string(), 1000 + input.len()));
                Verdict::Refused
            }
        }
    },
    inputs: 400_000,
};

fn expect_lines(bytes: &[u8], is_shown: bool) {
    const KNOWN: [&str; 17] = [
        "full address",
        "username",
        "prompt for credentials",
        "enablecredsspsupport",
        "authentication level",
        "allow font smoothing",
        "disable wallpaper",
        "disable themes",
        "disable full window drag",
        "disable menu anims",
        "remoteapplicationmode",
        "remoteapplicationprogram",
        "remoteapplicationname",
        "remoteapplicationcmdline",
        "shell working directory",
        "disableremoteappcapscheck",
        "loadbalanceinfo",
    ];
    let text = match bytes.strip_prefix(&[0xff, 0xfe]) {
        Some(rest) => {
            let units: Vec<u16> = rest.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            String::from_utf16(&units).expect("UTF-16")
        }
        None => String::from_utf8(bytes.to_vec()).expect("ASCII"),
    };
    assert!(is_shown || !text.contains(CANARY), "a password in the file");
    let mut seen = vec![];
    // Whatever a reader might take for the end of a line.
    for line in
        text.split(['\r', '\n', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']).filter(|line| !line.is_empty())
    {
        let (name, rest) = line.split_once(':').unwrap_or_else(|| panic!("no line of ours: {line:?}"));
        assert!(KNOWN.contains(&name) && (rest.starts_with("s:") || rest.starts_with("i:")), "{line:?}");
        assert!(!seen.contains(&name), "{name} stands twice");
        seen.push(name);
    }
}
