//! Finds out over the network whether a server answers on its connection port.
//!
//! A port that accepts connections shows little: port forwards, load balancers and the listeners of services that are
//! still starting accept too. So a probe says the first words of the protocol and waits for the server's. It never logs
//! in.
//!
//! Servers count connections that end without a login. TigerVNC by default turns an address away after five of them
//! (with a greeting, so a probe still finds it ready), and recent versions of OpenSSH refuse such an address for some
//! seconds. So probe at intervals, until a server is ready and not longer.

mod banner;
mod guard;
pub mod rdp;
pub mod tls;
mod verdict;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::ConnectionType;
use kasm_autoscale_core::ports::{ProbeFailure, ProbeTarget, Prober};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

pub use banner::{judge_ssh, judge_vnc};
pub use guard::AddressGuard;
pub use verdict::Verdict;

use verdict::{excerpt, with_article};

/// No more than this is ever read of an answer. The longest good one, an SSH identification after other lines, is
/// shorter.
const ANSWER_MAX: usize = 8 * 1024;
/// How every message about a server that could be connected to begins.
const ACCEPTED: &str = "accepted the connection, then ";
/// Of the addresses a name has, so many are tried.
const ADDRESSES_MAX: usize = 4;
/// How long a probe waits for the server to close its side too.
const FAREWELL: Duration = Duration::from_millis(200);

/// Probes servers over TCP. Cheap to copy; it keeps nothing from one probe to the next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NetProber {
    /// How long it may take to look the name up, and then again to be connected.
    pub connect_timeout: Duration,
    /// How long the server may then take for its whole answer.
    pub answer_timeout: Duration,
    /// Which addresses may be probed.
    pub guard: AddressGuard,
}

impl NetProber {
    /// A prober that gives a server 3 s to accept the connection and 5 s to answer.
    pub const fn new(guard: AddressGuard) -> Self {
        Self { connect_timeout: Duration::from_secs(3), answer_timeout: Duration::from_secs(5), guard }
    }
}

#[async_trait]
impl Prober for NetProber {
    async fn probe(&self, target: &ProbeTarget) -> Result<(), ProbeFailure> {
        let outcome = match self.connect(target).await {
            Ok(mut stream) => {
                let outcome = self.converse(&mut stream, &Conversation::of(target.connection)).await;
                part(stream).await;
                outcome
            }
            Err(message) => Err(message),
        };
        outcome.map_err(|message| ProbeFailure { message })
    }
}

/// What is said and what is expected, by protocol.
struct Conversation {
    name: &'static str,
    /// What the client says first; empty where the server does.
    request: Vec<u8>,
    judge: fn(&[u8]) -> Verdict,
}

impl Conversation {
    fn of(connection: ConnectionType) -> Self {
        match connection {
            ConnectionType::Rdp => Self { name: rdp::NAME, request: rdp::request().into(), judge: rdp::judge },
            ConnectionType::Vnc => Self { name: banner::VNC, request: Vec::new(), judge: judge_vnc },
            ConnectionType::Ssh => Self { name: banner::SSH, request: Vec::new(), judge: judge_ssh },
            ConnectionType::KasmVnc => Self { name: tls::NAME, request: tls::request().into(), judge: tls::judge },
        }
    }
}

impl NetProber {
    /// Connects to the first address of the target that accepts; if none does, tells what happened with the last.
    async fn connect(&self, target: &ProbeTarget) -> Result<TcpStream, String> {
        let addresses = self.addresses(target).await?;
        // The time is shared out, or an address that swallows packets would take all of it.
        let share = self.connect_timeout / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut failure = format!("the name {:?} has no address", target.host);
        for address in addresses {
            failure = match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => in_words(&error),
                Err(_elapsed) => format!("no connection within {}", seconds(share)),
            };
            if target.host.parse::<IpAddr>().is_err() {
                failure = format!("{failure} ({address})");
            }
        }
        Err(failure)
    }

    /// The addresses of the target that the guard lets pass.
    async fn addresses(&self, target: &ProbeTarget) -> Result<Vec<SocketAddr>, String> {
        if let Ok(address) = target.host.parse() {
            self.guard.check(address)?;
            return Ok(vec![SocketAddr::new(address, target.port)]);
        }
        self.guard.check_name(&target.host)?;
        let unresolved = |why: String| format!("the name {:?} was not resolved{why}", target.host);
        let found = timeout(self.connect_timeout, lookup_host((target.host.as_str(), target.port)))
            .await
            .map_err(|_elapsed| unresolved(format!(" within {}", seconds(self.connect_timeout))))?
            .map_err(|error| unresolved(format!(": {error}")))?;
        let (mut passed, mut refusal) = (Vec::new(), None);
        for address in found {
            match self.guard.check(address.ip()) {
                Ok(()) => passed.push(address),
                Err(why) => refusal = Some(why),
            }
        }
        passed.truncate(ADDRESSES_MAX);
        match refusal {
            Some(why) if passed.is_empty() => Err(why),
            _ => Ok(passed),
        }
    }

    /// Says the first words and judges the answer as it comes in.
    async fn converse(&self, stream: &mut TcpStream, conversation: &Conversation) -> Result<(), String> {
        let mut answer = Vec::new();
        let failure = match timeout(self.answer_timeout, exchange(stream, conversation, &mut answer)).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(failure)) => failure,
            Err(_elapsed) => Failure::Late,
        };
        let (name, limit) = (with_article(conversation.name), seconds(self.answer_timeout));
        let what = match failure {
            Failure::Judged(message) => return Err(format!("{ACCEPTED}{message}")),
            Failure::Late if answer.is_empty() => format!("sent no {} answer within {limit}", conversation.name),
            Failure::Late => format!("did not complete {name} answer within {limit}"),
            Failure::Closed => format!("closed it without {name} answer"),
            Failure::Io(error) => format!("without {name} answer: {}", in_words(&error)),
            Failure::TooLong => format!("sent {ANSWER_MAX} bytes without {name} answer"),
        };
        let begun = if answer.is_empty() { String::new() } else { format!(" after {}", excerpt(&answer)) };
        Err(format!("{ACCEPTED}{what}{begun}"))
    }
}

/// How a conversation can fail.
enum Failure {
    Judged(String),
    Late,
    Closed,
    Io(io::Error),
    TooLong,
}

/// Sends the request and reads until the answer can be judged. What was read stays in `answer` when this is cancelled.
async fn exchange(stream: &mut TcpStream, conversation: &Conversation, answer: &mut Vec<u8>) -> Result<(), Failure> {
    stream.write_all(&conversation.request).await.map_err(Failure::Io)?;
    let mut buffer = [0; 1024];
    while answer.len() < ANSWER_MAX {
        let count = stream.read(&mut buffer).await.map_err(Failure::Io)?;
        if count == 0 {
            return Err(Failure::Closed);
        }
        answer.extend(buffer.iter().take(count));
        match (conversation.judge)(answer) {
            Verdict::Ready => return Ok(()),
            Verdict::NotReady(message) => return Err(Failure::Judged(message)),
            Verdict::More => {}
        }
    }
    Err(Failure::TooLong)
}

/// Closes politely: says that nothing more will come and takes in, for a moment, what is still under way. A socket
/// dropped with unread data resets the connection, which servers log as an error.
async fn part(mut stream: TcpStream) {
    let farewell = async {
        stream.shutdown().await?;
        let mut buffer = [0; 1024];
        for _ in 0..ANSWER_MAX / buffer.len() {
            if stream.read(&mut buffer).await? == 0 {
                break;
            }
        }
        io::Result::Ok(())
    };
    // However it goes, the answer has been judged.
    let _ = timeout(FAREWELL, farewell).await;
}

/// A network error as a person would say it.
fn in_words(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => "connection refused".into(),
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => "connection reset".into(),
        Kind::HostUnreachable => "host unreachable".into(),
        Kind::NetworkUnreachable => "network unreachable".into(),
        Kind::TimedOut => "no connection: the network timed out".into(),
        _ => error.to_string(),
    }
}

/// `5 s`, `0.25 s`.
fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests;
