//! The daemon as a process of its own, and clients that are not ours.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::authority::{Authority, Identity, ending, put};
use crate::real::{Process, Program, free_port, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);
const TOKEN: &str = "kasm_tls_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

const CURL: Program = Program { name: "curl", variable: "KASM_CURL", install: "apt-get install curl" };
const OPENSSL: Program = Program { name: "openssl", variable: "KASM_OPENSSL", install: "apt-get install openssl" };

struct Daemon {
    port: u16,
    folder: tempfile::TempDir,
    process: Option<Process>,
}

impl Daemon {
    /// Its config file, with these lines in the table `[tls]`; certificate and key are `api.pem` and `api.key`.
    fn new(tls: &str) -> Self {
        Self::with(&format!("[tls]\ncertificate = \"api.pem\"\nkey = {{ file = \"api.key\" }}\n{tls}\n"))
    }

    /// Its config file, with these tables besides.
    fn with(tables: &str) -> Self {
        let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
        let text = format!(
            "listen = \"127.0.0.1:{port}\"\ndeployment_key = {{ env = \"KASM_TLS_KEY\" }}\nstore.path = \"pools.sqlite\"\n\
             log.filter = \"trace\"\n[[token]]\nname = \"tls\"\nrole = \"admin\"\nsecret = {{ env = \"KASM_TLS_TOKEN\" }}\n{tables}"
        );
        fs::write(folder.path().join("kasm.toml"), text).unwrap();
        Self { port, folder, process: None }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, action: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"));
        command.args([action, "--config"]).arg(self.path().join("kasm.toml")).stdin(Stdio::null());
        command.env("KASM_TLS_KEY", "5a".repeat(32)).env("KASM_TLS_TOKEN", TOKEN);
        command
    }

    /// What `check` ends with, and says.
    fn check(&self) -> (Option<i32>, String) {
        let output = self.command("check").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn start(&mut self) {
        let log = self.path().join("daemon.log");
        self.process = Some(Process::start(&mut self.command("run"), &log));
        self.until_logged("serving the API", 1);
    }

    fn log(&self) -> String {
        self.process.as_ref().map(Process::output).unwrap_or_default()
    }

    fn until_logged(&self, text: &str, times: usize) {
        let logged = wait_until(|| self.log().matches(text).count() >= times, PATIENCE);
        assert!(logged, "{text:?} is not logged {times} times: {}", self.log());
    }

    fn hang_up(&self) {
        self.process.as_ref().expect("it runs").signal("HUP");
    }
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// `curl` with these arguments, for this path.
fn curl(curl: &Path, daemon: &Daemon, arguments: &[&str], path: &str) -> Output {
    let url = format!("https://localhost:{}{path}", daemon.port);
    let mut command = Command::new(curl);
    // No proxy, no file of the user's.
    command.args(["--disable", "--noproxy", "*", "--silent", "--show-error", "--include", "--max-time", "30"]);
    command.current_dir(daemon.path()).args(arguments).arg(url).output().unwrap()
}

/// `openssl s_client` with these arguments.
fn s_client(openssl: &Path, daemon: &Daemon, arguments: &[&str]) -> Output {
    let address = format!("127.0.0.1:{}", daemon.port);
    let mut command = Command::new(openssl);
    command.args(["s_client", "-connect", &address, "-CAfile", "ca.pem", "-verify_return_error"]).args(arguments);
    command.current_dir(daemon.path()).stdin(Stdio::null()).output().unwrap()
}

fn programs() -> Option<(PathBuf, PathBuf)> {
    CURL.find().zip(OPENSSL.find())
}

#[test]
fn s_19_curl_and_openssl_are_served() {
    let Some((curl_program, openssl)) = programs() else { return };
    let (mut daemon, ours) = (Daemon::new(""), Authority::new("ours"));
    put(daemon.path(), "ca.pem", &ours.pem, 0o644);
    put(daemon.path(), "other.pem", &Authority::new("another").pem, 0o644);
    ours.server(1).put(daemon.path());
    daemon.start();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"]] {
        let arguments = [version, &["--cacert", "ca.pem", "--header", &bearer]].concat();
        let told = said(&curl(&curl_program, &daemon, &arguments, "/v1/pools"));
        assert!(told.contains("HTTP/1.1 200 OK") && told.contains("\"pools\""), "{told}");
        assert!(told.to_lowercase().contains("strict-transport-security: max-age=31536000"), "{told}");
    }
    // curl, "EXIT CODES": 60, the peer's certificate cannot be authenticated.
    let refused = curl(&curl_program, &daemon, &["--cacert", "other.pem"], "/healthz");
    assert_eq!(refused.status.code(), Some(60), "{}", said(&refused));
    for (version, protocol) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let told = said(&s_client(&openssl, &daemon, &[version]));
        assert!(told.contains("Verify return code: 0 (ok)") && told.contains(protocol), "{told}");
    }
    // With its own scruples about old versions put aside, it is the daemon that refuses.
    for version in ["-tls1", "-tls1_1"] {
        let told = said(&s_client(&openssl, &daemon, &[version, "-cipher", "ALL:@SECLEVEL=0"]));
        // RFC 5246 §7.2: protocol_version, or handshake_failure, as these old clients do not say which signatures they know.
        let refused = ["SSL alert number 70", "SSL alert number 40"].iter().any(|alert| told.contains(alert));
        assert!(refused && told.contains("Cipher is (NONE)"), "{version}: {told}");
    }
}

#[test]
fn s_19_curl_shows_its_certificate() {
    let Some((program, _)) = programs() else { return };
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let mut daemon = Daemon::new("client_ca = \"clients.pem\"\ncheckins_without_certificate = true");
    let files = |name: &str, identity: &Identity| {
        put(daemon.path(), &format!("{name}.pem"), &identity.pem, 0o644);
        put(daemon.path(), &format!("{name}.key"), &identity.key.serialize_pem(), 0o600);
    };
    files("portal", &clients.client(|_| {}));
    files("stranger", &Authority::new("clients").client(|_| {}));
    put(daemon.path(), "ca.pem", &ours.pem, 0o644);
    put(daemon.path(), "clients.pem", &clients.pem, 0o644);
    ours.server(1).put(daemon.path());
    daemon.start();
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let ask = |more: &[&str], path: &str| {
        let arguments = [&["--cacert", "ca.pem", "--header", &bearer], more].concat();
        said(&curl(&program, &daemon, &arguments, path))
    };
    let told = ask(&["--cert", "portal.pem", "--key", "portal.key"], "/v1/pools");
    assert!(told.contains("HTTP/1.1 200 OK"), "{told}");
    let told = ask(&[], "/v1/pools");
    assert!(told.contains("HTTP/1.1 403") && told.contains("no_client_certificate"), "{told}");
    let told = ask(&["--cert", "stranger.pem", "--key", "stranger.key"], "/healthz");
    assert!(told.contains("alert") && !told.contains("HTTP/1.1"), "{told}");
    let told = ask(&["--data", "{}"], "/api/set_server_status?token=x");
    assert!(told.contains("HTTP/1.1 401"), "{told}");
}

#[test]
fn s_19_sighup_looks_at_once_and_ends_nothing() {
    let Some((_, openssl)) = programs() else { return };
    let (mut daemon, ours) = (Daemon::new(""), Authority::new("ours"));
    put(daemon.path(), "ca.pem", &ours.pem, 0o644);
    ours.server(0x1111).put(daemon.path());
    daemon.start();
    let serial = |daemon: &Daemon| {
        let told = s_client(&openssl, daemon, &[]).stdout;
        let shown = daemon.path().join("shown.pem");
        fs::write(&shown, told).unwrap();
        said(&Command::new(&openssl).args(["x509", "-noout", "-serial", "-in"]).arg(shown).output().unwrap())
    };
    assert_eq!(serial(&daemon).trim(), "serial=1111");
    daemon.hang_up();
    daemon.until_logged("nothing has changed", 1);
    ours.server(0x2222).put(daemon.path());
    daemon.hang_up();
    daemon.until_logged("new connections are served with a new certificate", 1);
    assert_eq!(serial(&daemon).trim(), "serial=2222");
    put(daemon.path(), "api.pem", &ours.server(0x3333).pem, 0o644);
    daemon.hang_up();
    daemon.until_logged("is refused; the old ones go on", 1);
    let log = daemon.log();
    assert!(
        log.contains("tls.key: given file") && log.contains("serial 2222, for localhost, 127.0.0.1, until"),
        "{log}"
    );
    assert_eq!(serial(&daemon).trim(), "serial=2222");
    assert!(!daemon.process.as_mut().expect("it runs").has_ended());
}

#[test]
fn s_19_sighup_does_not_end_a_daemon_without_tls_either() {
    let mut daemon = Daemon::with("");
    daemon.start();
    for times in 1..=2 {
        daemon.hang_up();
        daemon.until_logged("there is no certificate to look at", times);
    }
    assert!(!daemon.process.as_mut().expect("it runs").has_ended());
}

/// What nobody may see of a key: each line of its PEM.
fn secrets_of(pem: &str) -> Vec<&str> {
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}

#[test]
fn s_19_the_key_is_never_printed() {
    let (mut daemon, ours) = (Daemon::new(""), Authority::new("ours"));
    let identity = ours.server(1);
    identity.put(daemon.path());
    let key = identity.key.serialize_pem();
    daemon.start();
    daemon.hang_up();
    daemon.until_logged("nothing has changed", 1);
    // A handshake that fails is told at the finer levels.
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.port)).unwrap();
    stream.write_all(&[22, 3, 1, 0, 1, 1]).unwrap();
    drop(stream);
    daemon.until_logged("a TLS handshake failed", 1);
    let mut told = daemon.log();
    // Keys that are damaged, in the wrong place, or of another kind.
    let begin = "-----BEGIN PRIVATE KEY-----";
    let spoilt = [
        key.replace(begin, "-----BEGIN PRIVATE KEY----"),
        key.replace("-----END PRIVATE KEY-----", ""),
        // Base64 still, but no key any more.
        key.replace("MI", "IM"),
        key.replace(begin, "-----BEGIN ENCRYPTED PRIVATE KEY-----").replace("END PRIVATE", "END ENCRYPTED PRIVATE"),
        key.replace('\n', "!\n"),
        key.chars().filter(|c| *c != '\n').collect(),
    ];
    let count = spoilt.len();
    for (number, key) in spoilt.iter().enumerate() {
        put(daemon.path(), "api.key", key, 0o600);
        daemon.hang_up();
        daemon.until_logged("is refused; the old ones go on", number + 1);
        let (code, text) = daemon.check();
        assert_eq!(code, Some(2), "{text}");
        told += &text;
        put(daemon.path(), "api.pem", key, 0o644);
        told += &daemon.check().1;
        identity.put(daemon.path());
    }
    told += &daemon.log();
    assert!(told.matches("tls.key: given file").count() >= 2 * count, "{told}");
    for secret in secrets_of(&key) {
        assert!(!told.contains(secret) && !told.contains(&secret[..secret.len() / 2]), "a part of the key in: {told}");
    }
}

#[test]
fn s_19_with_tls_the_daemon_may_be_reached_from_elsewhere() {
    let (daemon, ours) = (Daemon::new(""), Authority::new("ours"));
    ours.issue(ending(4_000_000_000)).put(daemon.path());
    let file = daemon.path().join("kasm.toml");
    let text = fs::read_to_string(&file).unwrap().replace("127.0.0.1:", "0.0.0.0:");
    fs::write(&file, &text).unwrap();
    assert_eq!(daemon.check().0, Some(0), "{}", daemon.check().1);
    fs::write(&file, text.replace("[tls]", "[other]")).unwrap();
    let (code, told) = daemon.check();
    assert!(code == Some(2) && told.contains("listen: given \"0.0.0.0:"), "{told}");
    fs::write(&file, format!("plain_http_behind_proxy = true\n{text}")).unwrap();
    let (code, told) = daemon.check();
    let expected = "kasm.toml:1:27: error: plain_http_behind_proxy: given true, and a table [tls]; ";
    assert!(code == Some(2) && told.contains(expected), "{told}");
}
