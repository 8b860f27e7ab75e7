//! The main job, end to end: the daemon's own process, a real EC2 API, a real RDP server.
#![cfg(feature = "aws")]

#[path = "support/ec2.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod ec2;
#[path = "../../tests/support/http.rs"]
mod http;
#[path = "../../tests/support/moto.rs"]
mod moto;
#[path = "../../tests/support/real.rs"]
mod real;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ec2::Ec2;
use real::{Process, Program, free_port, wait_until};
use serde_json::{Value, json};

const XRDP: Program = Program { name: "xrdp", variable: "KASM_XRDP", install: "install the Debian package xrdp" };
const TOKEN: &str = "kasm_e2e_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";
/// Long enough for a slow machine, and over at once when it has happened.
const PATIENCE: Duration = Duration::from_secs(90);

/// A daemon that can be killed and started again on the same store.
struct Daemon {
    port: u16,
    folder: std::path::PathBuf,
    child: Option<Child>,
}

impl Daemon {
    fn new(folder: &Path, ec2: &Ec2) -> Self {
        let port = free_port();
        let text = format!(
            r#"
listen = "127.0.0.1:{port}"
deployment_key = {{ env = "KASM_E2E_KEY" }}

[store]
path = "{store}"

[[token]]
name = "e2e"
role = "admin"
secret = {{ env = "KASM_E2E_TOKEN" }}

[provider.ec2]
kind = "aws"
region = "us-east-1"
endpoint_url = "{moto}"
# moto shows a machine at once.
visibility_lag = "1s"
poll_busy = "500ms"
poll_idle = "2s"
credentials = {{ access_key_id = "AKIAE2E", secret_access_key = {{ env = "KASM_E2E_SECRET" }} }}
"#,
            store = folder.join("pools.sqlite").display(),
            moto = ec2.moto.url(),
        );
        std::fs::write(folder.join("kasm.toml"), text).expect("the config file is written");
        Self { port, folder: folder.into(), child: None }
    }

    fn start(&mut self) {
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("daemon.log")).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"));
        command.args(["run", "--config"]).arg(self.folder.join("kasm.toml"));
        command.env("KASM_E2E_KEY", "5a".repeat(32)).env("KASM_E2E_TOKEN", TOKEN).env("KASM_E2E_SECRET", "e2e-secret");
        command.env("AWS_EC2_METADATA_DISABLED", "true").stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(command.spawn().expect("the daemon starts"));
        let up = wait_until(
            || http::request(self.port, "GET", "/healthz", &[], "").is_ok_and(|answer| answer.status == 200),
            PATIENCE,
        );
        assert!(up, "the daemon does not come up: {}", self.log());
    }

    /// `kill -9`: no chance to write anything.
    fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("daemon.log")).unwrap_or_default()
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> http::Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = http::request(self.port, method, path, &headers, &body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.log()))
    }

    fn want(&self, status: u16, method: &str, path: &str, body: &Value) -> Value {
        let answer = self.ask(method, path, body);
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
        answer.json()
    }

    /// The servers of a pool, as `(phase, machine)`.
    fn servers(&self, pool: &str) -> Vec<(String, String)> {
        let answer = self.want(200, "GET", &format!("/v1/pools/{pool}/servers?limit=1000"), &Value::Null);
        let text = |server: &Value, field: &str| server[field].as_str().unwrap_or_default().to_owned();
        let servers = answer["servers"].as_array().cloned().unwrap_or_default();
        servers.iter().map(|server| (text(server, "phase"), text(server, "machine"))).collect()
    }

    fn ready(&self, pool: &str) -> usize {
        self.servers(pool).iter().filter(|(phase, _)| phase == "ready").count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // A test that failed leaves nothing behind either.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A real RDP server on a loopback port.
fn start_xrdp(folder: &Path) -> Option<(Process, u16)> {
    let program = XRDP.find()?;
    let port = free_port();
    let folder = folder.join("xrdp");
    std::fs::create_dir(&folder).expect("a folder");
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ])
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "openssl makes a certificate");
    let at = folder.display();
    let ini = format!(
        "[Globals]\nport=tcp://127.0.0.1:{port}\nsecurity_layer=tls\ncertificate={at}/cert.pem\nkey_file={at}/key.pem\n[Logging]\nLogFile={at}/xrdp.log\nLogLevel=INFO\n[Xvnc]\nname=Xvnc\nlib=libvnc.so\n"
    );
    std::fs::write(folder.join("xrdp.ini"), ini).expect("the config is written");
    let mut command = Command::new(program);
    command.args(["--nodaemon", "--config"]).arg(folder.join("xrdp.ini"));
    real::unprivileged(&mut command, &folder);
    let process = Process::start(&mut command, &folder.join("output.log"));
    let up = wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), Duration::from_secs(20));
    assert!(up, "xrdp listens: {}", process.output());
    Some((process, port))
}

fn config(name: &str, ec2: &Ec2, rdp: u16, minimum: u32, reusable: bool) -> Value {
    json!({
        "name": name,
        "provider": "ec2",
        "connection_type": "rdp",
        "connection_port": rdp,
        "connection_address": "127.0.0.1",
        "connection_username": "{sso_username}",
        "connection_password": "{sso_cred}",
        "reusable": reusable,
        "minimum_available_sessions": minimum,
        "max_sessions_per_server": 4,
        "max_servers": 200,
        "downscale_backoff": "3s",
        "boot_deadline": "2m",
        "machine": { "ami": "ami-12c6146b", "instance_type": "t3.large", "subnet_id": ec2.subnet },
        "startup_script": "Write-Output '{server_hostname}'",
    })
}

/// Waits until exactly so many servers are ready and nothing is under way.
fn settle(daemon: &Daemon, pool: &str, ready: usize) {
    let settled = wait_until(|| daemon.servers(pool).len() == ready && daemon.ready(pool) == ready, PATIENCE);
    let why = daemon.want(200, "GET", &format!("/v1/pools/{pool}/why"), &Value::Null);
    assert!(settled, "{ready} servers ready: {:?}\n{why:#}\n{}", daemon.servers(pool), daemon.log());
}

/// What the store knows is what EC2 has: nothing forgotten, nothing twice.
fn compare(daemon: &Daemon, ec2: &Ec2, pool: &str) {
    let known: BTreeSet<String> = daemon.servers(pool).into_iter().map(|(_, machine)| machine).collect();
    let there: BTreeSet<String> = ec2.live().into_iter().map(|instance| instance.id).collect();
    assert_eq!(known, there, "{}", daemon.log());
    let marks: BTreeSet<String> =
        ec2.live().into_iter().filter_map(|instance| instance.tags.get("kasm-autoscale:server").cloned()).collect();
    assert_eq!(marks.len(), there.len(), "every machine is another server's");
}

fn request_users(daemon: &Daemon, pool: &str, users: std::ops::Range<u32>) -> Vec<String> {
    let request = |user: u32| {
        // 201: the session is there at once; 202 would mean that the user waits.
        let answer =
            daemon.want(201, "POST", &format!("/v1/pools/{pool}/sessions"), &json!({ "user": format!("user{user}") }));
        assert_eq!(answer["connection"]["username"], format!("user{user}"));
        answer["id"].as_str().expect("an id").to_owned()
    };
    users.map(request).collect()
}

#[test]
fn a_pool_keeps_its_free_sessions_on_ec2() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(ec2) = Ec2::start() else { return };
    let Some((_xrdp, rdp)) = start_xrdp(folder.path()) else { return };
    let mut daemon = Daemon::new(folder.path(), &ec2);
    daemon.start();

    // Ten sessions free at all times, four on each server: three servers, and never more.
    daemon.want(201, "POST", "/v1/pools", &json!({ "name": "once" }));
    daemon.want(201, "POST", "/v1/pools/once/configs", &config("ec2", &ec2, rdp, 10, false));
    settle(&daemon, "once", 3);
    assert_eq!(ec2.instances().len(), 3, "never more than three");

    // Nine users arrive, and nobody waits; what they took is made up for.
    let sessions = request_users(&daemon, "once", 0..9);
    settle(&daemon, "once", 5);
    assert_eq!(ec2.instances().len(), 5);

    // They leave. Servers that are not reusable go with them; those nobody was on stay.
    for session in &sessions {
        daemon.want(200, "DELETE", &format!("/v1/pools/once/sessions/{session}"), &Value::Null);
    }
    let gone = || ec2.instances().iter().filter(|instance| !instance.is_live()).count();
    assert!(wait_until(|| gone() == 3, PATIENCE), "three used servers are gone: {:?}", daemon.servers("once"));
    settle(&daemon, "once", 3);
    compare(&daemon, &ec2, "once");

    // Reusable servers stay, and only the surplus goes, after the backoff.
    daemon.want(200, "POST", "/v1/pools/once/configs/ec2/disable", &Value::Null);
    settle(&daemon, "once", 0);
    assert_eq!(ec2.live(), []);
    daemon.want(201, "POST", "/v1/pools", &json!({ "name": "again" }));
    daemon.want(201, "POST", "/v1/pools/again/configs", &config("ec2", &ec2, rdp, 10, true));
    settle(&daemon, "again", 3);
    let first: BTreeSet<String> = daemon.servers("again").into_iter().map(|(_, machine)| machine).collect();
    let sessions = request_users(&daemon, "again", 0..9);
    settle(&daemon, "again", 5);
    for session in &sessions {
        daemon.want(200, "DELETE", &format!("/v1/pools/again/sessions/{session}"), &Value::Null);
    }
    settle(&daemon, "again", 3);
    let last: BTreeSet<String> = daemon.servers("again").into_iter().map(|(_, machine)| machine).collect();
    assert_eq!(first, last, "the servers that were there first are kept");
    compare(&daemon, &ec2, "again");

    // Disabled: the pool ends empty, in the store and in EC2.
    daemon.want(200, "POST", "/v1/pools/again/configs/ec2/disable", &Value::Null);
    settle(&daemon, "again", 0);
    assert_eq!(ec2.live(), []);
}

#[test]
fn kill_minus_nine_at_any_moment_neither_doubles_nor_forgets_a_machine() {
    const KILLS: u32 = 20;
    // So many must have come in time. Where fewer of the first have, for that machine's speed, more are tried.
    const IN_TIME: u32 = 5;
    const KILLS_MAX: u32 = 60;
    let folder = tempfile::tempdir().expect("a folder");
    let Some(ec2) = Ec2::start() else { return };
    let Some((_xrdp, rdp)) = start_xrdp(folder.path()) else { return };
    let mut daemon = Daemon::new(folder.path(), &ec2);
    daemon.start();
    daemon.want(201, "POST", "/v1/pools", &json!({ "name": "crash" }));
    daemon.want(201, "POST", "/v1/pools/crash/configs", &config("ec2", &ec2, rdp, 4, true));
    settle(&daemon, "crash", 1);
    let mut moment = 17_u64;
    let mut interrupted = 0;
    // How long the daemon may live after a wish, at most: found out as we go, since no two machines are equally fast.
    let mut longest = 60;
    let mut kill = 0;
    while kill < KILLS || (interrupted < IN_TIME && kill < KILLS_MAX) {
        kill += 1;
        // Three more servers each time; the daemon dies somewhere between the wish and its fulfilment.
        let minimum = 4 + kill * 12;
        daemon.want(200, "PUT", "/v1/pools/crash/configs/ec2", &config("ec2", &ec2, rdp, minimum, true));
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis((moment >> 33) % longest));
        daemon.kill();
        let wanted = usize::try_from(1 + kill * 3).expect("a few");
        let in_time = ec2.live().len() < wanted;
        interrupted += u32::from(in_time);
        longest = if in_time { longest + 5 } else { (longest / 2).max(1) };
        daemon.start();
        settle(&daemon, "crash", wanted);
        compare(&daemon, &ec2, "crash");
        assert_eq!(
            ec2.instances().len(),
            ec2.live().len(),
            "kill {kill}: a machine was made that nobody needed: {}",
            daemon.log()
        );
    }
    assert!(interrupted >= IN_TIME, "only {interrupted} of {kill} kills came before everything was made: kill earlier");
    daemon.want(200, "POST", "/v1/pools/crash/configs/ec2/disable", &Value::Null);
    settle(&daemon, "crash", 0);
    assert_eq!(ec2.live(), []);
}
