//! moto: AWS's APIs, written by others from AWS's documentation, as a server on loopback.

#![allow(dead_code, reason = "each test uses its own part of this")]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::http::request;
use crate::real::{Process, Program, free_port, wait_until};

const MOTO: Program = Program { name: "moto_server", variable: "KASM_MOTO_SERVER", install: "run `make tools`" };
/// It needs about five seconds on a quiet machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running moto. It ends when the last test that uses it has ended.
pub(crate) struct Moto {
    port: u16,
    process: Process,
    /// Dropped last: the process writes its log there.
    _folder: tempfile::TempDir,
}

impl Moto {
    /// The moto of this test process, started if it does not run yet; `None` if it is not installed, and the notice has
    /// been given.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<Moto>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moto) = running.upgrade() {
            return Some(moto);
        }
        let moto = Arc::new(Self::start()?);
        *running = Arc::downgrade(&moto);
        Some(moto)
    }

    /// A moto of one's own.
    pub(crate) fn start() -> Option<Self> {
        let program = MOTO.find()?;
        // Another program may take the free port before moto does: then moto ends, and another port is tried.
        for _ in 0..3 {
            let folder = tempfile::tempdir().expect("a folder");
            let port = free_port();
            let mut command = Command::new(&program);
            command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).env("AWS_EC2_METADATA_DISABLED", "true");
            let mut process = Process::start(&mut command, &folder.path().join("moto.log"));
            let answers =
                || request(port, "GET", "/moto-api/data.json", &[], "").is_ok_and(|answer| answer.status == 200);
            wait_until(|| process.has_ended() || answers(), PATIENCE);
            if !process.has_ended() {
                return Some(Self { port, process, _folder: folder });
            }
        }
        panic!("{} does not start", program.display());
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Sends a request of the AWS query protocol (EC2 API Reference, "Query requests") without the SDK; the status and the
    /// body of the answer. moto reads service and region from the credential scope, and checks no signature.
    pub(crate) fn query(&self, service: &str, form: &str) -> (u16, String) {
        let scope = format!(
            "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let headers = [("Authorization", scope.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        let answer = request(self.port, "POST", "/", &headers, form).expect("moto answers");
        (answer.status, answer.body)
    }
}
