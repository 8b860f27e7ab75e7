//! Who is served, and who is not.

use std::sync::Arc;
use std::time::Duration;

use kasm_daemon::api::Limits;
use rustls::ProtocolVersion;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::Authority;
use crate::client::{Reply, raw};
use crate::peer::{PATIENCE, Peer, get, speaking, trusting};
use crate::stage::{Stage, settings};

async fn stage(limits: Limits) -> (Stage, Authority) {
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    authority.server(1).put(folder.path());
    // What was read is enough: the folder goes, and that is refused.
    (Stage::new(settings(folder.path()), limits).await, authority)
}

#[tokio::test]
async fn s_19_tls_1_2_and_1_3_are_spoken_and_browsers_are_told_to_stay() {
    let (stage, authority) = stage(Limits::default()).await;
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let mut config = speaking(&[version], &authority, None);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let mut peer = Peer::connect(stage.address, &Arc::new(config)).await.unwrap();
        let session = peer.0.get_ref().1;
        assert_eq!((session.protocol_version(), session.alpn_protocol()), (Some(spoken), Some(&b"http/1.1"[..])));
        // Twice over one connection.
        for _ in 0..2 {
            let reply = peer.get("/healthz").await.unwrap();
            assert_eq!((reply.status, reply.header("strict-transport-security")), (200, "max-age=31536000"));
        }
        let reply = peer.ask("GET", "/v1/pools", &stage.admin).await.unwrap();
        assert_eq!(reply.status, 200, "{reply:?}");
        peer.get("/v1/pools").await.unwrap().refused(401, "no_token");
    }
    let mut config = trusting(&authority, None);
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(get(stage.address, config, "/healthz").await.is_err(), "what is not spoken is not agreed on");
}

/// A ClientHello of this version (RFC 4346 §7.4.1.2, RFC 5246 §7.4.1.2) that any server of it would take.
fn hello(minor: u8) -> Vec<u8> {
    // ECDHE with ECDSA or RSA: AES-128-CBC-SHA as TLS 1.1 has them, AES-128-GCM as TLS 1.2 does.
    let suites = [0xC0, 0x09, 0xC0, 0x13, 0xC0, 0x2B, 0xC0, 0x2F];
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0],             // ec_point_formats: uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 4, 1], // signature_algorithms: ECDSA and RSA, SHA-256
        &[0, 23, 0, 0],                   // extended_master_secret
    ]
    .concat();
    let length = |bytes: usize| u8::try_from(bytes).unwrap();
    let mut body = vec![3, minor];
    body.extend([7; 32]);
    body.extend([0, 0, length(suites.len())]);
    body.extend(suites);
    body.extend([1, 0, 0, length(extensions.len())]);
    body.extend(extensions);
    let message = [&[1, 0, 0, length(body.len())][..], &body].concat();
    [&[22, 3, 1, 0, length(message.len())][..], &message].concat()
}

#[tokio::test]
async fn s_19_older_versions_are_refused() {
    let limits = Limits { handshake_time: Duration::from_millis(500), ..Limits::default() };
    let (stage, _) = stage(limits).await;
    let answer = raw(stage.address, &hello(3)).await;
    assert_eq!(answer.get(..3), Some(&[22, 3, 3][..]), "TLS 1.2 is answered by a handshake: {answer:02x?}");
    for minor in 0..3 {
        let answer = raw(stage.address, &hello(minor)).await;
        // RFC 5246 §7.2: a fatal alert, protocol_version.
        assert_eq!((answer[0], &answer[3..]), (21, &[0, 2, 2, 70][..]), "3.{minor}: {answer:02x?}");
    }
    // SSL 2.0 and all that is no TLS at all is not worth an answer.
    for begin in [&[0x80, 0x2e, 1, 0, 2][..], b"\0", b"\n", b"get / HTTP/1.1\r\n\r\n", &[21, 3, 3, 0, 2, 2, 70]] {
        assert_eq!(raw(stage.address, begin).await, b"", "{begin:02x?}");
    }
}

#[tokio::test]
async fn s_19_a_client_believes_neither_another_authority_nor_another_name() {
    let (stage, authority) = stage(Limits::default()).await;
    assert!(stage.is_up(&authority).await);
    // It has the same name, and a key of its own.
    let stranger = Authority::new("ours");
    let refused = get(stage.address, trusting(&stranger, None), "/healthz").await.unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    let config = Arc::new(trusting(&authority, None));
    let refused = Peer::connect_to("kasm.example", stage.address, &config).await.err().expect("another name");
    assert!(refused.to_string().contains("not valid for name"), "{refused}");
    assert!(Peer::connect_to("127.0.0.1", stage.address, &config).await.is_ok());
}

#[tokio::test]
async fn s_19_plain_http_is_told_so_and_nothing_else() {
    let (stage, _) = stage(Limits::default()).await;
    for head in ["GET /healthz", "POST /v1/pools", "PRI *"] {
        let text = format!("{head} HTTP/1.1\r\nhost: localhost\r\n{}content-length: 2\r\n\r\n{{}}", stage.admin);
        // The connection is closed, though nobody has asked for that.
        let reply = Reply::parse(&raw(stage.address, text.as_bytes()).await);
        assert_eq!(reply.header("strict-transport-security"), "", "RFC 6797 §7.2");
        assert_eq!(reply.header("connection"), "close");
        let error = reply.refused(400, "plain_http");
        assert!(error["message"].as_str().unwrap().contains("https://"), "{error}");
    }
}

#[tokio::test]
async fn s_19_slow_handshakes_are_ended() {
    let limits = Limits { handshake_time: Duration::from_millis(200), ..Limits::default() };
    let (stage, authority) = stage(limits).await;
    let hello = hello(3);
    // One that says nothing, one that stops within its first message, one that never answers.
    assert_eq!(raw(stage.address, b"").await, b"");
    assert_eq!(raw(stage.address, &hello[..20]).await, b"");
    assert!(!raw(stage.address, &hello).await.is_empty(), "it was answered, and then ended");
    assert!(stage.is_up(&authority).await);
}

#[tokio::test]
async fn s_19_slow_handshakes_are_in_nobodys_way_and_count() {
    let limits = Limits { handshake_time: Duration::from_secs(3600), connections_per_address: 40, ..Limits::default() };
    let (stage, authority) = stage(limits).await;
    let begun = hello(3);
    let mut slow = vec![];
    for number in 0..40 {
        // While there are so many, others are served.
        assert!(stage.is_up(&authority).await, "{number}");
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(&begun[..number % 3 * 10]).await.unwrap();
        slow.push(stream);
    }
    // One more of this address is too many, though none has shaken hands.
    let refused = async {
        while stage.is_up(&authority).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("the last one is counted when it has been accepted");
    drop(slow);
    let served = async {
        while !stage.is_up(&authority).await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("whoever has gone does not count any more");
}

#[tokio::test]
async fn s_19_all_connections_count_from_their_first_byte_on() {
    let limits = Limits { handshake_time: Duration::from_secs(2), connections: 1, ..Limits::default() };
    let (stage, authority) = stage(limits).await;
    let mut silent = TcpStream::connect(stage.address).await.unwrap();
    // It is served when the silent one has been ended, and not before: that one has the only place.
    assert!(stage.is_up(&authority).await);
    let ended = tokio::time::timeout(Duration::from_secs(1), silent.read(&mut [0])).await;
    assert!(matches!(ended, Ok(Ok(0))), "{ended:?}");
}

#[tokio::test]
async fn s_19_a_handshake_that_is_under_way_does_not_keep_the_daemon_from_stopping() {
    let hour = Duration::from_secs(3600);
    let (mut stage, authority) = stage(Limits { handshake_time: hour, grace: hour, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.write_all(&hello(3)[..20]).await.unwrap();
    assert!(stage.is_up(&authority).await);
    stage.stop.cancel();
    tokio::time::timeout(PATIENCE, &mut stage.served).await.expect("it stops").unwrap().unwrap();
}
