//! moto, a simulator of AWS in Python, as a server on loopback. Other crates' tests may include this file by `#[path]`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

#[path = "real.rs"]
mod real;

const VARIABLE: &str = "KASM_MOTO_SERVER";

/// How long it may take to start: it needs about five seconds on a quiet machine.
const TRIES: u32 = 900;
const PAUSE: Duration = Duration::from_millis(100);

/// A running moto. It ends when the last test that uses it has ended.
pub(crate) struct Moto {
    process: Child,
    address: SocketAddr,
}

impl Moto {
    /// The moto of this test process, started if it does not run yet; `None` if moto is not installed.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static RUNNING: Mutex<Weak<Moto>> = Mutex::new(Weak::new());
        let Some(executable) = real::executable(VARIABLE, "moto_server") else {
            real::skip("moto_server", VARIABLE);
            return None;
        };
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(moto) = running.upgrade() {
            return Some(moto);
        }
        let moto = Arc::new(Self::start(&executable));
        *running = Arc::downgrade(&moto);
        Some(moto)
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends a request of the AWS query protocol without the SDK; the status and the body of the answer.
    pub(crate) fn query(&self, service: &str, form: &str) -> (u16, String) {
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {service}.amazonaws.com\r\nAuthorization: {authorization}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
            form.len()
        );
        exchange(self.address, &request).expect("moto answers")
    }

    fn start(executable: &Path) -> Self {
        // Another program may take the free port before moto does: then moto ends, and another port is tried.
        for _ in 0..3 {
            if let Some(moto) = Self::try_start(executable) {
                return moto;
            }
        }
        panic!("{} did not start", executable.display());
    }

    fn try_start(executable: &Path) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .expect("a free port");
        let mut command = Command::new(executable);
        command.args(["-H", "127.0.0.1", "-p", &free.port().to_string()]);
        command
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut moto = Self { process: command.spawn().expect("moto_server can be run"), address: free };
        for _ in 0..TRIES {
            if moto.process.try_wait().ok()?.is_some() {
                return None;
            }
            let request = "GET /moto-api/data.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            if exchange(free, request).is_ok_and(|(status, _)| status == 200) {
                return Some(moto);
            }
            thread::sleep(PAUSE);
        }
        None
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It has ended already, or ends now; there is nothing to do about a failure.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn exchange(address: SocketAddr, request: &str) -> std::io::Result<(u16, String)> {
    assert!(address.ip().is_loopback(), "{address} is not on loopback");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    status.map(|status| (status, body)).ok_or_else(|| std::io::Error::other("no HTTP answer"))
}
