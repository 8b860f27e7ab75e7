//! How much at once, and for how long: what is too much is answered or ended, and harms nobody else.

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_daemon::api::{Limits, ServeError, serve};
use kasm_daemon::auth::{Role, Tokens};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::client::{Ask, Reply, raw};
use crate::stage::{Stage, config};

/// A pool in which every request waits.
async fn full(limits: Limits) -> Stage {
    let stage = Stage::with(limits).await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let config = config("a", json!({ "max_servers": 0 }));
    stage.admin("POST", "/v1/pools/office/configs").json(&config).send().await.expect(201);
    stage
}

fn wait(stage: &Stage, user: &str, span: &str) -> Ask {
    let path = format!("/v1/pools/office/sessions?wait={span}");
    stage.admin("POST", &path).json(&json!({ "user": user }))
}

/// Until so many requests wait in the pool.
async fn until_waiting(stage: &Stage, count: u32) {
    let pool = stage.host.pool("office").unwrap();
    while pool.look(|pool| pool.report().waiting).await.unwrap() < count {
        tokio::time::sleep(millis(10)).await;
    }
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[tokio::test]
async fn slow_clients_are_ended() {
    let limits = Limits { header_time: millis(200), body_time: millis(200), ..Limits::default() };
    let stage = Stage::with(limits).await;
    // A header that never ends, and a connection that says nothing.
    assert!(!String::from_utf8_lossy(&raw(stage.address, b"GET /healthz HTTP/1.1\r\nhost: ").await).contains("200 OK"));
    assert!(raw(stage.address, b"").await.is_empty());
    // An idle connection that has been of use before.
    let kept = raw(stage.address, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(Reply::parse(&kept).status, 200);
    let token = &stage.tokens[&Role::Admin];
    let text = format!(
        "POST /v1/pools HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{{"
    );
    let reply = Reply::parse(&raw(stage.address, text.as_bytes()).await);
    assert_eq!(reply.status, 408, "{reply:?}");
    assert_eq!(reply.json()["error"]["code"], "body_too_slow");
}

#[tokio::test]
async fn a_peer_that_never_reads_its_answers_is_ended() {
    let limits = Limits { connections: 1, answer_time: millis(200), ..Limits::default() };
    let stage = Stage::with(limits).await;
    let mut deaf = TcpStream::connect(stage.address).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    // Until it is ended: answers are not read, so in the end requests are not read either.
    let mut asked = 0_u64;
    while deaf.write_all(&request).await.is_ok() {
        asked += 100;
        assert!(asked < 1_000_000, "so many answers do not fit anywhere");
    }
    assert!(asked > 0);
    // The only connection that there may be is free again.
    assert_eq!(stage.bare("GET", "/healthz").send().await.status, 200);
}

#[tokio::test]
async fn long_headers_are_refused() {
    let stage = Stage::new().await;
    let fits = stage.bare("GET", "/healthz").header("x-long", &"x".repeat(30 * 1024)).send().await;
    assert_eq!(fits.status, 200);
    let long = stage.bare("GET", "/healthz").header("x-long", &"x".repeat(40 * 1024)).send().await;
    assert_eq!(long.status, 431);
    let mut many = stage.bare("GET", "/healthz");
    for number in 0..200 {
        many = many.header(&format!("x-{number}"), "x");
    }
    assert_eq!(many.send().await.status, 431);
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_again() {
    let stage = full(Limits { requests: 1, ..Limits::default() }).await;
    let first = tokio::spawn(wait(&stage, "ann", "5s").send());
    until_waiting(&stage, 1).await;
    let second = stage.admin("GET", "/v1/pools").send().await;
    assert_eq!(second.header("retry-after"), "1");
    second.refused(503, "too_many_requests");
    assert_eq!(stage.bare("GET", "/healthz").send().await.status, 200, "health is told all the same");
    first.await.unwrap().expect(202);
    stage.admin("GET", "/v1/pools").send().await.expect(200);
}

#[tokio::test]
async fn what_takes_too_long_or_panics_is_answered() {
    let stage = full(Limits { handler: millis(1000), ..Limits::default() }).await;
    wait(&stage, "ann", "30s").send().await.refused(503, "timeout");
    let panics = config("b", json!({ "connection_password": { "secret": "panics" } }));
    stage.admin("POST", "/v1/pools/office/configs").json(&panics).send().await.refused(500, "internal");
    stage.admin("GET", "/v1/pools").send().await.expect(200);
}

#[tokio::test]
async fn answers_that_wait_leave_room_for_others() {
    let stage = full(Limits { waits: 1, ..Limits::default() }).await;
    let first = tokio::spawn(wait(&stage, "ann", "60s").send());
    until_waiting(&stage, 1).await;
    wait(&stage, "bob", "60s").send().await.expect(202);
    assert!(!first.is_finished(), "one waits already, so this one is answered at once");
    first.abort();
}

#[tokio::test]
async fn connections_wait_for_their_turn() {
    let limits = Limits { connections: 1, header_time: millis(400), ..Limits::default() };
    let stage = Stage::with(limits).await;
    let mut idle = TcpStream::connect(stage.address).await.unwrap();
    idle.write_all(b"GET /healthz").await.unwrap();
    // The second is served when the first has been ended for its slowness.
    assert_eq!(stage.bare("GET", "/healthz").send().await.status, 200);
    let mut rest = vec![];
    let _ = idle.read_to_end(&mut rest).await;
}

#[tokio::test]
async fn to_stop_ends_waits_and_closes_the_door() {
    let stage = full(Limits::default()).await;
    let waits = tokio::spawn(wait(&stage, "ann", "60s").send());
    until_waiting(&stage, 1).await;
    let started = tokio::time::Instant::now();
    stage.stop.cancel();
    waits.await.unwrap().expect(202);
    stage.served.await.unwrap().unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "half of what was to be waited: {:?}", started.elapsed());
    assert!(TcpStream::connect(stage.address).await.is_err());
}

#[tokio::test]
async fn what_does_not_end_is_broken_off() {
    let stage = Stage::with(Limits { grace: millis(300), ..Limits::default() }).await;
    let token = &stage.tokens[&Role::Admin];
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    // A body that does not come.
    let head = format!(
        "POST /v1/pools HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::sleep(millis(200)).await;
    stage.stop.cancel();
    let served = tokio::time::timeout(Duration::from_secs(5), stage.served).await;
    served.expect("it ends all the same").unwrap().unwrap();
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty());
}

#[tokio::test]
async fn without_tokens_only_this_machine_is_served() {
    let stage = Stage::guarded(Tokens::none(), BTreeMap::new(), Limits::default()).await;
    stage.bare("GET", "/v1/pools").send().await.expect(200);
    stage.bare("GET", "/v1/pools").header("origin", &format!("http://{}", stage.address)).send().await.expect(200);
    // A page from elsewhere that makes a browser here send this, plainly or by DNS rebinding.
    stage
        .bare("POST", "/v1/pools/filed/configs/stone/disable")
        .header("origin", "https://evil.example")
        .send()
        .await
        .refused(403, "not_local");
    stage.bare("GET", "/v1/pools").header("host", "evil.example").send().await.refused(403, "not_local");

    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let served = serve(stage.host.clone(), Tokens::none(), listener, CancellationToken::new());
    let refused = tokio::time::timeout(Duration::from_secs(5), served).await.expect("it is served").unwrap_err();
    assert!(matches!(refused, ServeError::OpenBeyondLoopback(_)));
    assert!(refused.to_string().contains("listen on 127.0.0.1, or set up tokens"), "{refused}");
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    serve(stage.host.clone(), Tokens::new(vec![]), listener, stop).await.unwrap();
}
