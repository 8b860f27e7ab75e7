//! One pool on two clouds, end to end: the daemon's own process, stand-ins for EC2 and for Azure, and a login storm in the
//! middle of which EC2 runs dry.
#![cfg(all(feature = "aws", feature = "azure"))]

#[path = "../../kasm-providers/tests/support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "../../kasm-providers/tests/support/arm.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod arm;
#[path = "support/clouds.rs"]
mod clouds;
#[path = "../../kasm-providers/tests/support/ec2_standin.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod ec2_standin;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/real.rs"]
mod real;
#[path = "../../kasm-providers/tests/support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;
#[path = "../../kasm-providers/tests/support/swagger.rs"]
mod swagger;
#[path = "../../kasm-providers/tests/support/tls.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod tls;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use arm::{CLIENT, CLIENT_SECRET, GROUP, REGION, SUBSCRIPTION, TENANT};
use clouds::{Clouds, Desktop, SECOND};
use real::{free_port, wait_until};
use serde_json::{Value, json};

const TOKEN: &str = "kasm_e2e_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
/// Long enough for a slow machine and for EC2 to be asked again after a minute or two, and over at once when it has happened.
const PATIENCE: Duration = Duration::from_secs(240);
/// What Azure's stand-in takes to make a machine.
const AZURE_BOOTS_IN: Duration = SECOND.saturating_mul(30);
/// What lists, probes and a slow computer may add to that. EC2 is asked again after a minute at the earliest, less a tenth, so
/// whoever waited for that is found out.
const SLACK: Duration = Duration::from_secs(45);
const SUBNET: &str = "/subscriptions/0b1f6471-1bf0-4dda-aec3-cb9272f09590/resourceGroups/net/providers/Microsoft.Network/virtualNetworks/desktops/subnets/pool";

/// Sessions on each server, and those that EC2's config keeps free.
const ON_EACH: usize = 2;
const FREE: usize = 4;
/// How many machines EC2 has room for before it recovers.
const ROOM: usize = 4;
const USERS: usize = 12;

/// The daemon's process.
struct Daemon {
    port: u16,
    log: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(folder: &Path, clouds: &Clouds) -> Self {
        let (port, azure) = (free_port(), clouds.arm.url());
        let text = format!(
            r#"
listen = "127.0.0.1:{port}"
deployment_key = {{ env = "KASM_E2E_KEY" }}

[store]
path = "pools.sqlite"

[log]
# Every look of the test would be in it.
filter = "info,kasm_daemon::api::gate=warn"

[[token]]
name = "e2e"
role = "admin"
secret = {{ env = "KASM_E2E_TOKEN" }}

[provider.ec2]
kind = "aws"
region = "us-east-1"
endpoint_url = "{ec2}"
visibility_lag = "5s"
poll_busy = "500ms"
poll_idle = "1s"
credentials = {{ access_key_id = "AKIAE2E", secret_access_key = {{ env = "KASM_E2E_SECRET" }} }}

[provider.azure]
kind = "azure"
subscription = "{SUBSCRIPTION}"
resource_group = "{GROUP}"
region = "{REGION}"
endpoint_url = "{azure}"
authority = "{azure}"
audience = "{azure}"
ca_file = "{ca}"
visibility_lag = "5s"
poll_busy = "500ms"
poll_idle = "1s"
power_states_age = "0s"
admin_password_key = {{ env = "KASM_E2E_ADMIN" }}
credentials = {{ tenant_id = "{TENANT}", client_id = "{CLIENT}", client_secret = {{ env = "KASM_E2E_CLIENT" }} }}
"#,
            ec2 = clouds.ec2_url(),
            ca = clouds.arm.ca_file().display(),
        );
        fs::write(folder.join("kasm.toml"), text).expect("the config file is written");
        let log = folder.join("daemon.log");
        let output = File::create(&log).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"));
        command.args(["run", "--config"]).arg(folder.join("kasm.toml"));
        command.env("KASM_E2E_KEY", "5a".repeat(32)).env("KASM_E2E_TOKEN", TOKEN).env("KASM_E2E_SECRET", "e2e-secret");
        command.env("KASM_E2E_ADMIN", "canary-admin-key-0123456789").env("KASM_E2E_CLIENT", CLIENT_SECRET);
        command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
        command.stdout(output.try_clone().expect("a log")).stderr(output);
        let daemon = Self { port, log, child: command.spawn().expect("the daemon starts") };
        let up = || http::request(port, "GET", "/healthz", &[], "").is_ok_and(|answer| answer.status == 200);
        assert!(wait_until(up, PATIENCE), "the daemon does not come up: {}", daemon.log());
        daemon
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    fn want(&self, statuses: &[u16], method: &str, path: &str, body: &Value) -> Value {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::request(self.port, method, path, &headers, &body);
        let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()));
        assert!(statuses.contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        answer.json()
    }

    fn get(&self, path: &str) -> Value {
        self.want(&[200], "GET", &format!("/v1/pools/office{path}"), &Value::Null)
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.want(&[200, 201, 202], "POST", &format!("/v1/pools/office{path}"), body)
    }

    /// Waits for something, and tells everything that is known if it does not come.
    #[track_caller]
    fn until(&self, what: &str, clouds: &Clouds, condition: impl FnMut() -> bool) {
        let came = wait_until(condition, PATIENCE);
        let machines = (clouds.on_ec2(), clouds.on_azure());
        assert!(came, "{what}: {machines:?}\n{:#}\n{}", self.get("/why"), self.log());
    }

    /// How many servers of a config are ready, if no others of it are under way.
    fn settled(&self, config: &str) -> Option<usize> {
        let servers = self.get("/servers?limit=1000")["servers"].as_array().cloned().expect("a list");
        let own: Vec<&Value> = servers.iter().filter(|server| server["config"] == config).collect();
        own.iter().all(|server| server["phase"] == "ready").then_some(own.len())
    }

    /// The sessions, those that have ended aside.
    fn sessions(&self) -> Vec<Value> {
        let list = self.get("/sessions?limit=1000")["sessions"].as_array().cloned().expect("a list");
        list.into_iter().filter(|session| session["state"] != "ended").collect()
    }

    /// How a config and another one stand in for each other: the word for it, the other one and the sessions.
    fn fallback(&self, config: &str) -> Vec<(String, String, u64)> {
        let why = self.get("/why");
        let configs = why["configs"].as_array().expect("a list");
        let own = configs.iter().find(|one| one["config"] == config).expect("the config");
        let told = own["fallback"].as_array().expect("a list").iter().map(|one| &one["value"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        told.map(|value| (text(&value["fallback"]), text(&value["config"]), value["sessions"].as_u64().unwrap_or(0)))
            .collect()
    }

    /// So many users ask for a session at once.
    fn storm(&self, users: std::ops::Range<usize>) {
        std::thread::scope(|scope| {
            for user in users {
                scope.spawn(move || self.post("/sessions", &json!({ "user": format!("user{user}") })));
            }
        });
    }

    fn all_active(&self, users: usize) -> bool {
        let sessions = self.sessions();
        sessions.len() == users && sessions.iter().all(|session| session["state"] == "active")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(name: &str, desktop: &Desktop, priority: u32, free: usize, machine: &Value) -> Value {
    json!({
        "name": name,
        "provider": name,
        "priority": priority,
        "connection_type": "rdp",
        "connection_port": desktop.port(),
        "connection_address": "127.0.0.1",
        "connection_username": "{sso_username}",
        "connection_password": "{sso_cred}",
        "reusable": true,
        "minimum_available_sessions": free,
        "max_sessions_per_server": ON_EACH,
        "max_servers": 30,
        "downscale_backoff": "1s",
        "boot_deadline": "5m",
        "machine": machine,
    })
}

/// How long a session was waited for, by the daemon's own clock.
fn waited(session: &Value) -> Duration {
    let at = |field: &str| {
        let text = session[field].as_str().unwrap_or_else(|| panic!("{field} of {session}"));
        chrono::DateTime::parse_from_rfc3339(text).expect("a time")
    };
    (at("since") - at("requested_at")).to_std().expect("nobody is served before asking")
}

#[test]
fn azure_takes_over_when_ec2_runs_dry_in_a_login_storm_until_ec2_recovers() {
    let folder = tempfile::tempdir().expect("a folder");
    let (clouds, desktop) = (Clouds::start(ROOM), Desktop::start());
    let daemon = Daemon::start(folder.path(), &clouds);
    daemon.want(&[201], "POST", "/v1/pools", &json!({ "name": "office", "placement": "pack" }));
    let on_ec2 = json!({ "ami": ec2_standin::AMI, "instance_type": "m7i.large", "subnet_id": ec2_standin::SUBNET });
    let on_azure = json!({ "vm_size": "Standard_D4s_v5", "subnet": SUBNET, "admin_username": "desk",
        "image": "MicrosoftWindowsServer:WindowsServer:2022-datacenter-g2:latest" });
    daemon.post("/configs", &config("ec2", &desktop, 1, FREE, &on_ec2));
    daemon.post("/configs", &config("azure", &desktop, 2, 0, &on_azure));

    // While EC2 has room, Azure is left alone.
    daemon.until("EC2 keeps its free sessions", &clouds, || daemon.settled("ec2") == Some(FREE / ON_EACH));
    assert_eq!((clouds.refused(), clouds.asked_of_azure()), (0, 0));

    // More users than EC2 has room for. It makes what it can; the others get Azure's machines, and wait for no more than that.
    daemon.storm(0..USERS);
    daemon.until("everybody has a session", &clouds, || daemon.all_active(USERS));
    let longest = daemon.sessions().iter().map(waited).max().expect("sessions");
    assert!(longest <= AZURE_BOOTS_IN + SLACK, "somebody waited {longest:?}\n{}", daemon.log());
    assert!(clouds.refused() > 0, "EC2 has not run dry");

    // What EC2 promised to keep free is kept free by Azure, and both say so.
    let promise = u64::try_from(FREE).expect("a few");
    let covered = vec![("covered_by".to_owned(), "azure".to_owned(), promise)];
    let covering = vec![("covering_for".to_owned(), "ec2".to_owned(), promise)];
    daemon.until("the configs say who covers for whom", &clouds, || {
        daemon.fallback("ec2") == covered && daemon.fallback("azure") == covering
    });
    let on_azure = (USERS + FREE - ROOM * ON_EACH).div_ceil(ON_EACH);
    daemon.until("both have settled", &clouds, || {
        (daemon.settled("ec2"), daemon.settled("azure")) == (Some(ROOM), Some(on_azure))
    });
    assert_eq!((clouds.on_ec2().len(), clouds.on_azure().len()), (ROOM, on_azure));

    // EC2 recovers. It is found out without anybody's help, and EC2 keeps its promise again.
    clouds.give_room(usize::MAX);
    daemon.until("EC2 has its promise back", &clouds, || {
        daemon.settled("ec2") == Some(ROOM + FREE / ON_EACH) && daemon.fallback("ec2").is_empty()
    });
    // What Azure covered goes, but for the servers that people are on.
    let in_use = (USERS - ROOM * ON_EACH).div_ceil(ON_EACH);
    daemon.until("Azure gives up what it covered", &clouds, || {
        daemon.settled("azure") == Some(in_use) && clouds.on_azure().len() == in_use
    });

    // The next storm is EC2's alone.
    let (azure_before, ec2_before) = (clouds.asked_of_azure(), clouds.on_ec2().len());
    daemon.storm(USERS..2 * USERS);
    daemon.until("everybody has a session again", &clouds, || daemon.all_active(2 * USERS));
    assert!(clouds.on_ec2().len() > ec2_before, "EC2 has made nothing new");
    assert_eq!(clouds.asked_of_azure(), azure_before, "Azure was asked although EC2 has room: {}", daemon.log());

    // Everybody leaves, the configs are switched off, and nothing costs money any more.
    for session in daemon.sessions() {
        let id = session["id"].as_str().expect("an id");
        daemon.want(&[200], "DELETE", &format!("/v1/pools/office/sessions/{id}"), &Value::Null);
    }
    for name in ["ec2", "azure"] {
        daemon.post(&format!("/configs/{name}/disable"), &Value::Null);
    }
    let empty = || daemon.get("/servers")["servers"] == json!([]);
    daemon.until("the pool is empty", &clouds, empty);
    assert_eq!((clouds.on_ec2(), clouds.arm.everything()), (Vec::new(), Vec::new()), "{}", daemon.log());
    assert!(!daemon.log().contains(CLIENT_SECRET), "the log tells a secret");
}
