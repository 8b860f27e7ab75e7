//! Bytes that are no HTTP or no whole one: each on a connection of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kasm_autoscale_core::testing::entropy::Entropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Tally;
use crate::bodies::one;
use crate::requests::Draw;

/// A request within another one's body: whoever takes it for a request of its own is deceived.
const INNER: &str = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";

/// Messages by name. Every one may be answered once at most, and never with more than one success.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let text = |name, text: &str| (name, text.as_bytes().to_vec());
    let length = INNER.len();
    vec![
        text("no request line", "\r\n\r\n\r\n\r\nGET\r\n\r\n"),
        text("HTTP/0.9", "GET /healthz\r\n\r\n"),
        text("HTTP/2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        text("HTTP/9.9", "GET / HTTP/9.9\r\n\r\n"),
        ("TLS", vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0]),
        text("a space before the colon", "GET /v1/pools HTTP/1.1\r\nhost : x\r\n\r\n"),
        text("a folded header", "GET /v1/pools HTTP/1.1\r\nhost: x\r\na: b\r\n c: d\r\n\r\n"),
        text("bare line feeds", "GET /v1/pools HTTP/1.1\nhost: x\n\n"),
        text("a null in a header", "GET /v1/pools HTTP/1.1\r\nhost: x\r\na: \0\r\n\r\n"),
        text(
            "two lengths",
            &format!(
                "POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\ncontent-length: 0\r\n\r\n{INNER}"
            ),
        ),
        text(
            "a length with a sign",
            &format!("POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: +{length}\r\n\r\n{INNER}"),
        ),
        text(
            "a length that overflows",
            &format!("POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n{INNER}"),
        ),
        text("a length in words", &format!("POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: ten\r\n\r\n{INNER}")),
        text(
            "length and chunks",
            &format!(
                "POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{INNER}",
                length + 5
            ),
        ),
        text(
            "chunks and length",
            &format!(
                "POST /v1/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-length: {}\r\n\r\n0\r\n\r\n{INNER}",
                length + 5
            ),
        ),
        text(
            "chunks in disguise",
            &format!(
                "POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\ntransfer-encoding: xchunked\r\n\r\n{INNER}"
            ),
        ),
        text(
            "chunks twice",
            &format!(
                "POST /v1/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n{INNER}"
            ),
        ),
        text(
            "a chunk too long",
            &format!(
                "POST /v1/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff0\r\n{INNER}"
            ),
        ),
        text(
            "a chunk of words",
            &format!("POST /v1/login HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{INNER}"),
        ),
        text(
            "a body broken off",
            "POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
        ),
        text("a header broken off", "GET /v1/pools HTTP/1.1\r\nhost: x\r\nauthoriz"),
        text(
            "an absolute target",
            "GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nhost: 169.254.169.254\r\n\r\n",
        ),
        text("a tunnel", "CONNECT 10.0.0.1:22 HTTP/1.1\r\nhost: 10.0.0.1:22\r\n\r\n"),
        text("an upgrade", "GET /v1/pools HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"),
        text(
            "an expectation",
            "POST /v1/login HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
        ),
    ]
}

pub(crate) async fn send(address: SocketAddr, draw: &mut Draw, tally: &Tally) {
    let all = messages();
    let (kind, mut bytes) = all[usize::try_from(draw.entropy.pick(all.len() as u64)).unwrap()].clone();
    let kind = match draw.entropy.pick(12) {
        0 => {
            bytes = (0..draw.entropy.range(1..=3000)).map(|_| u8::try_from(draw.entropy.pick(256)).unwrap()).collect();
            "noise"
        }
        1 => {
            bytes = format!("GET /v1/pools HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "z".repeat(40_000)).into_bytes();
            "long headers"
        }
        2 => {
            let many = one(&mut draw.entropy, &["a: b\r\n", "authorization: Bearer x\r\n", "cookie: c\r\n"]);
            bytes = format!("GET /v1/pools HTTP/1.1\r\nhost: x\r\n{}\r\n", many.repeat(300)).into_bytes();
            "many headers"
        }
        _ => kind,
    };
    let answer = conversation(address, &bytes).await;
    let Some(answer) = answer else {
        return tally.broken(format!(
            "{kind}: the connection is neither answered nor ended: {:?}",
            String::from_utf8_lossy(&bytes)
        ));
    };
    let statuses = statuses(&answer);
    tally.count(kind, statuses.first().copied().unwrap_or(0));
    if statuses.len() > 1 {
        tally.broken(format!("{kind} was answered twice, {statuses:?}: {}", String::from_utf8_lossy(&answer)));
    }
    let wins = statuses.iter().filter(|status| (200..300).contains(*status)).count();
    if wins > 0 && kind != "noise" || statuses.iter().any(|status| *status >= 500) {
        tally.broken(format!("{kind} was answered {statuses:?}: {}", String::from_utf8_lossy(&answer)));
    }
}

/// Sends, says that no more will come, and reads to the end; `None` if there is none in time.
async fn conversation(address: SocketAddr, bytes: &[u8]) -> Option<Vec<u8>> {
    let talk = async {
        let mut answer = vec![];
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let _ = stream.read_to_end(&mut answer).await;
        }
        answer
    };
    tokio::time::timeout(Duration::from_secs(60), talk).await.ok()
}

/// The statuses of all answers in these bytes. No body of ours holds a status line.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    lines.filter(|status| *status != 100).collect()
}

/// Connections that say next to nothing, a byte at a time, as long as the others do their worst. Answers with how many there were.
pub(crate) async fn sloths(address: SocketAddr, stop: Arc<AtomicBool>) -> u64 {
    let mut count = 0;
    let mut open: Vec<(TcpStream, usize)> = vec![];
    let text = b"POST /v1/login HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\ncontent-type: application/json\r\n\r\n{";
    while !stop.load(Ordering::Relaxed) {
        while open.len() < 64 {
            if let Ok(stream) = TcpStream::connect(address).await {
                open.push((stream, 0));
                count += 1;
            }
        }
        let mut still = vec![];
        for (mut stream, at) in open {
            let byte = text.get(at).copied().unwrap_or(b' ');
            if stream.write_all(&[byte]).await.is_ok() {
                still.push((stream, at + 1));
            }
        }
        open = still;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    count
}
