//! The audit log of the daemon as it is run: written by one process, verified by another.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use kasm_daemon::auth::generate_token;
use rusqlite::Connection;
use secrecy::ExposeSecret;

/// A daemon of the test's own, and all that it has logged.
struct Daemon {
    child: Child,
    address: String,
    log: BufReader<std::process::ChildStderr>,
    logged: String,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"))
            .args(["run", "--config"])
            .arg(folder.join("kasm.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let mut daemon = Self { child, address: String::new(), log, logged: String::new() };
        let line = daemon.line_with("serving the API");
        let address = line.rsplit("address=").next().unwrap().split_whitespace().next().unwrap();
        daemon.address = address.to_owned();
        daemon
    }

    fn line_with(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.log.read_line(&mut line).unwrap() > 0, "no line with {words:?}: {}", self.logged);
            self.logged += &line;
            if line.contains(words) {
                return line;
            }
        }
    }

    fn ask(&self, token: &str, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it with this signal, and answers with all that it has logged.
    fn end(mut self, signal: &str) -> String {
        let told = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        self.child.wait().unwrap();
        std::mem::take(&mut self.logged) + &rest
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last head that a log tells.
fn head(log: &str) -> String {
    log.lines().filter_map(|line| line.rsplit_once("head=")).next_back().unwrap().1.trim().to_owned()
}

fn audit(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kasm-daemon"))
        .arg("audit")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code().unwrap(), text)
}

fn keep_key(folder: &Path, digit: &str) {
    let path = folder.join("key");
    let _ = std::fs::remove_file(&path);
    let mut options = std::fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
    options.open(path).unwrap().write_all(digit.repeat(64).as_bytes()).unwrap();
}

const CONFIG: [&str; 2] = ["--config", "kasm.toml"];

#[test]
fn s_22_what_a_daemon_has_written_is_verified_by_the_audit_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let new = generate_token("ops").unwrap();
    let token = new.token.expose_secret();
    keep_key(folder, "a");
    let text = format!(
        "listen = \"127.0.0.1:0\"\ndeployment_key = {{ file = \"key\" }}\nstore.path = \"kasm.db\"\nlimits.audit_entries = 1000\n\
         [[token]]\nname = \"ops\"\nrole = \"admin\"\nsha256 = \"{}\"\n",
        new.sha256
    );
    std::fs::write(folder.join("kasm.toml"), text).unwrap();

    let daemon = Daemon::start(folder);
    let made = daemon.ask(token, "POST", "/v1/pools", "{\"name\": \"office\"}");
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    let list = daemon.ask(token, "GET", "/v1/audit", "");
    let fingerprint = &new.sha256[..16];
    assert!(list.contains(&format!("\"token\":\"{fingerprint}\"")), "{list}");
    let log = daemon.end("-TERM");
    let stopped = head(&log);
    assert!(stopped.starts_with("4:"), "started, asked, answered, stopped: {stopped}\n{log}");
    assert!(log.contains("head=1:"), "also where it began: {log}");

    let (code, text) = audit(folder, &CONFIG);
    assert!(code == 0 && text.contains("audit log: 4 entries, 1 to 4, held against the key"), "{code}: {text}");
    let (code, text) = audit(folder, &["--store", "kasm.db"]);
    assert!(code == 0 && text.contains("NOT VERIFIED") && text.contains("--config"), "{code}: {text}");
    let (code, text) = audit(folder, &[&CONFIG[..], &["--head", &stopped]].concat());
    assert_eq!(code, 0, "{text}");

    // A daemon that is killed says no more, and leaves what it has acknowledged.
    let daemon = Daemon::start(folder);
    daemon.ask(token, "PUT", "/v1/pools/office", "{}");
    daemon.end("-KILL");
    let (code, text) = audit(folder, &[&CONFIG[..], &["--head", &stopped]].concat());
    let entries = text.contains("audit log: 6 entries") || text.contains("audit log: 7 entries");
    assert!(code == 0 && entries, "{code}: {text}");
    let unanswered = text.contains("note: audit log: entry 6: no answer to") && text.contains("PUT /v1/pools/{pool}");
    assert_eq!(unanswered, text.contains("6 entries"), "{text}");

    keep_key(folder, "b");
    let (code, text) = audit(folder, &CONFIG);
    assert!(
        code == 1 && text.contains("FOUND S-22") && text.contains("entry 1 is the first that does not fit"),
        "{text}"
    );
    keep_key(folder, "a");
    let store = Connection::open(folder.join("kasm.db")).unwrap();
    store.execute("DELETE FROM audit WHERE number >= 4", []).unwrap();
    drop(store);
    let (code, text) = audit(folder, &CONFIG);
    assert_eq!(code, 0, "the chain alone cannot show that its end is gone: {text}");
    let (code, text) = audit(folder, &[&CONFIG[..], &["--head", &stopped]].concat());
    assert!(code == 1 && text.contains("its end was cut off"), "{code}: {text}");
    let (code, text) = audit(folder, &[&CONFIG[..], &["--head", "4:xyz"]].concat());
    assert!(code == 2 && text.contains("NUMBER:MAC"), "{code}: {text}");
    let store = Connection::open(folder.join("kasm.db")).unwrap();
    store.execute("UPDATE audit SET entry = replace(entry, 'ops', 'bob') WHERE number = 2", []).unwrap();
    drop(store);
    let (code, text) = audit(folder, &CONFIG);
    assert!(code == 1 && text.contains("entry 2 is the first that does not fit"), "{code}: {text}");
}
