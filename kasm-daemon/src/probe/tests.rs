//! The prober against small servers of our own that misbehave in every way; real servers are in `tests/probe_real.rs`.

use std::future::Future;
use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;

const QUICK: NetProber = NetProber {
    connect_timeout: Duration::from_secs(3),
    answer_timeout: Duration::from_millis(250),
    guard: AddressGuard::LoopbackOnly,
};

fn target(host: &str, port: u16, connection: ConnectionType) -> ProbeTarget {
    ProbeTarget { host: host.into(), port, connection }
}

/// Probes a server that treats its one connection like this.
async fn probe_of<F, S>(connection: ConnectionType, serve: S) -> Result<(), String>
where
    S: FnOnce(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = target("127.0.0.1", listener.local_addr().unwrap().port(), connection);
    let probe = tokio::spawn(async move { QUICK.probe(&target).await });
    let (stream, _) = listener.accept().await.unwrap();
    // It ends with the runtime of its test at the latest.
    tokio::spawn(serve(stream));
    probe.await.unwrap().map_err(|failure| failure.message)
}

/// A server that sends this, one byte at a time, and then waits.
async fn probe_of_answer(connection: ConnectionType, answer: &'static [u8]) -> Result<(), String> {
    probe_of(connection, move |mut stream| async move {
        stream.set_nodelay(true).unwrap();
        for byte in answer {
            stream.write_all(&[*byte]).await.unwrap();
        }
        std::future::pending().await
    })
    .await
}

#[tokio::test]
async fn an_answer_may_come_in_pieces() {
    let good: [(ConnectionType, &[u8]); 5] = [
        (ConnectionType::Rdp, b"\x03\0\0\x13\x0e\xd0\0\0\x12\x34\0\x02\x1f\x08\0\x02\0\0\0"),
        (ConnectionType::Rdp, b"\x03\0\0\x0b\x06\xd0\0\0\x12\x34\0"),
        (ConnectionType::Vnc, b"RFB 003.008\n"),
        (ConnectionType::Ssh, b"welcome\r\nSSH-2.0-test\r\n"),
        (ConnectionType::KasmVnc, b"\x16\x03\x03\0\x5a\x02"),
    ];
    for (connection, answer) in good {
        assert_eq!(probe_of_answer(connection, answer).await, Ok(()), "{connection}");
    }
}

#[tokio::test]
async fn silence_is_no_answer() {
    let expected = [
        (ConnectionType::Rdp, "accepted the connection, then sent no RDP answer within 0.25 s"),
        (ConnectionType::Vnc, "accepted the connection, then sent no VNC answer within 0.25 s"),
        (ConnectionType::Ssh, "accepted the connection, then sent no SSH answer within 0.25 s"),
        (ConnectionType::KasmVnc, "accepted the connection, then sent no TLS answer within 0.25 s"),
    ];
    for (connection, message) in expected {
        assert_eq!(probe_of_answer(connection, b"").await, Err(message.into()));
    }
}

#[tokio::test]
async fn a_server_that_closes_is_not_ready() {
    let closed = probe_of(ConnectionType::Vnc, |stream| async { drop(stream) }).await;
    assert_eq!(closed, Err("accepted the connection, then closed it without a VNC answer".into()));
    let closed =
        probe_of(ConnectionType::Vnc, |mut stream| async move { stream.write_all(b"RFB 0").await.unwrap() }).await;
    assert_eq!(closed, Err("accepted the connection, then closed it without a VNC answer after \"RFB 0\"".into()));
    // The request is there and not read, so closing resets the connection.
    let reset = probe_of(ConnectionType::Rdp, |stream| async move {
        stream.readable().await.unwrap();
        drop(stream);
    })
    .await;
    assert_eq!(reset, Err("accepted the connection, then without an RDP answer: connection reset".into()));
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let half = probe_of_answer(ConnectionType::Rdp, b"\x03\0\0\x13").await;
    let message =
        "accepted the connection, then did not complete an RDP answer within 0.25 s after \"\\x03\\x00\\x00\\x13\"";
    assert_eq!(half, Err(message.into()));
}

#[tokio::test]
async fn another_protocol_is_named() {
    let http = probe_of_answer(ConnectionType::Rdp, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap_err();
    assert!(http.starts_with("accepted the connection, then sent \"H"), "{http}");
    let long = probe_of_answer(ConnectionType::Rdp, b"\x03\0\xff\xff\x0e\xd0").await.unwrap_err();
    assert!(long.contains("65535 bytes"), "{long}");
}

#[tokio::test]
async fn a_server_that_never_stops_talking_is_left() {
    let endless = probe_of(ConnectionType::Ssh, |mut stream| async move {
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    })
    .await
    .unwrap_err();
    assert!(endless.contains("instead of an SSH answer"), "{endless}");
}

#[tokio::test]
async fn the_server_sees_an_orderly_end() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let ready = probe_of(ConnectionType::Ssh, |mut stream| async move {
        stream.write_all(b"SSH-2.0-test\r\n").await.unwrap();
        stream.write_all(&[0; 4096]).await.unwrap();
        let mut rest = Vec::new();
        tell.send(stream.read_to_end(&mut rest).await.map_err(|error| error.kind())).unwrap();
    })
    .await;
    assert_eq!(ready, Ok(()));
    assert_eq!(told.await.unwrap(), Ok(0), "end of file and not a reset");
}

#[tokio::test]
async fn guarded_addresses_get_no_packet() {
    let refused = |host: &'static str, guard| async move {
        let prober = NetProber { guard, ..QUICK };
        prober.probe(&target(host, 9, ConnectionType::Rdp)).await.unwrap_err().message
    };
    // Without the guard each would take the whole connect time, or go out to a name server.
    let checks = async {
        assert!(refused("192.0.2.1", AddressGuard::LoopbackOnly).await.contains("not a loopback address"));
        assert!(refused("example.com", AddressGuard::LoopbackOnly).await.contains("not looked up"));
        assert!(refused("169.254.169.254", AddressGuard::Any).await.contains("link-local"));
        assert!(refused("fd00:ec2::254", AddressGuard::Any).await.contains("metadata"));
        assert!(refused("0.0.0.0", AddressGuard::Any).await.contains("unspecified"));
    };
    timeout(Duration::from_secs(1), checks).await.unwrap();
}

#[tokio::test]
async fn a_name_is_resolved_and_its_addresses_are_tried_in_turn() {
    // Bound to IPv4 only: where localhost is also ::1, that is tried first and refused.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let probe = tokio::spawn(async move { QUICK.probe(&target("localhost", port, ConnectionType::Vnc)).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"RFB 003.008\n").await.unwrap();
    assert_eq!(probe.await.unwrap(), Ok(()));
    drop(listener);
    let closed = QUICK.probe(&target("localhost", port, ConnectionType::Vnc)).await.unwrap_err();
    assert!(closed.message.starts_with("connection refused ("), "{closed}");
}

#[test]
fn messages() {
    let default = NetProber::new(AddressGuard::Any);
    assert_eq!((seconds(default.connect_timeout), seconds(default.answer_timeout)), ("3 s".into(), "5 s".into()));
    assert_eq!(in_words(&io::Error::from(io::ErrorKind::ConnectionRefused)), "connection refused");
    assert_eq!(in_words(&io::Error::from(io::ErrorKind::HostUnreachable)), "host unreachable");
}
