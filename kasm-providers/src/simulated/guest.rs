//! What a simulated machine answers on its port: the first words of RDP, SSH or VNC, and no more.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// A client that says nothing for so long waits for the server to speak first, as VNC clients do.
const SILENCE: Duration = Duration::from_millis(200);
/// How long a client may take for the rest of its words, and how long the connection then stays open.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many connections one machine serves at once; the next one waits.
const CONNECTIONS_MAX: usize = 16;
/// The longest connection request that is read, in bytes. With the longest cookie a client sends it has about 300.
const REQUEST_MAX: usize = 1024;

/// An X.224 Connection Confirm in its TPKT, with an `RDP_NEG_RSP` that selects TLS (MS-RDPBCGR 2.2.1.2).
const CONNECTION_CONFIRM: [u8; 19] = [
    3, 0, 0, 19, // TPKT: version, reserved, length of all
    14, 0xd0, 0, 0, 0x12, 0x34,
    0, // X.224: length of the rest, Connection Confirm, the peer's and our reference, class 0
    2, 0, 8, 0, // RDP_NEG_RSP: type, flags, length
    1, 0, 0, 0, // PROTOCOL_SSL
];

/// Answers until it is dropped, and every connection with it.
pub(super) async fn serve(listener: TcpListener) {
    let mut connections = JoinSet::new();
    loop {
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream));
            }
            // Mostly too many open files, which passes; to try again at once would only burn the processor.
            Err(_) => tokio::time::sleep(SILENCE).await,
        }
    }
}

/// The client may leave at any point: that is its business, so what goes wrong ends the conversation and nothing else.
async fn converse(mut stream: TcpStream) {
    let mut first = [0; 4];
    let answer: &[u8] = match timeout(SILENCE, stream.read_exact(&mut first)).await {
        Err(_) => b"RFB 003.008\n",
        Ok(Ok(_)) if first == *b"SSH-" => b"SSH-2.0-simulated\r\n",
        Ok(Ok(_)) if is_connection_request(&mut stream, first).await => &CONNECTION_CONFIRM,
        Ok(_) => return,
    };
    if stream.write_all(answer).await.is_ok() {
        let mut rest = [0; 512];
        // Read on until the client closes: a socket closed with unread bytes resets, and the answer could be lost.
        let _ = timeout(PATIENCE, async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} }).await;
    }
}

/// Reads the rest of a TPKT, and says whether an X.224 Connection Request is in it.
async fn is_connection_request(stream: &mut TcpStream, header: [u8; 4]) -> bool {
    let [version, _, high, low] = header;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if version != 3 || !(11..=REQUEST_MAX).contains(&length) {
        return false;
    }
    let mut request = vec![0; length - header.len()];
    let read = timeout(PATIENCE, stream.read_exact(&mut request)).await;
    matches!(read, Ok(Ok(_))) && usize::from(request[0]) + 1 == request.len() && request[1] & 0xf0 == 0xe0
}
