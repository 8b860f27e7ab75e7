//! A client that keeps its connection as long as the server does, and reads exactly one answer to one request.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer may take longer, however many ask at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// One answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A connection that is made anew when it has ended.
pub(crate) struct Line {
    address: SocketAddr,
    stream: Option<TcpStream>,
    read: Vec<u8>,
}

impl Line {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, stream: None, read: vec![] }
    }

    pub(crate) async fn ask(&mut self, request: &[u8], is_head: bool) -> Result<Reply, String> {
        let talk = async {
            // A kept connection may have been closed meanwhile: the server has then not looked at the request.
            for _ in 0..3 {
                let is_fresh = self.stream.is_none();
                match self.once(request, is_head).await {
                    Some(reply) => return Ok(reply),
                    None if is_fresh => return Err("no answer".to_owned()),
                    None => {}
                }
            }
            Err("no answer".to_owned())
        };
        tokio::time::timeout(PATIENCE, talk).await.unwrap_or_else(|_| Err("no answer in time".into()))
    }

    async fn once(&mut self, request: &[u8], is_head: bool) -> Option<Reply> {
        if self.stream.is_none() {
            self.stream = Some(TcpStream::connect(self.address).await.ok()?);
            self.read.clear();
        }
        let stream = self.stream.as_mut()?;
        // The server may answer, and close, before it has read everything.
        let wrote = stream.write_all(request).await.is_ok();
        let reply = read_reply(stream, &mut self.read, is_head).await;
        let goes_on = reply.as_ref().is_some_and(|reply| !reply.head.contains("connection: close"));
        if !wrote || !goes_on || !self.read.is_empty() {
            self.stream = None;
        }
        reply
    }
}

async fn read_reply(stream: &mut TcpStream, read: &mut Vec<u8>, is_head: bool) -> Option<Reply> {
    let mut chunk = [0; 8192];
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.split("\r\n").find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let length: usize = if is_head || status == 204 { 0 } else { length };
    while read.len() < end + length {
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
            _ => return None,
        }
    }
    let body = String::from_utf8_lossy(&read[end..end + length]).into_owned();
    read.drain(..end + length);
    Some(Reply { status, head, body })
}
