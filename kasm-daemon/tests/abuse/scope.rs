//! Who reaches what, and how much of it: the checks S-12 to S-21, each by its number. The role matrix, S-11, is
//! `tests/api/roles.rs`; slow and many connections are in `tests/api/limits.rs` too.

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{DeploymentKey, checkin_token};
use kasm_daemon::api::Limits;
use kasm_daemon::auth::{Role, TokenEntry, Tokens, generate_token};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::Ask;
use crate::stage::{KEY_BYTE, Stage, config};

fn reusable(name: &str) -> Value {
    config(name, json!({ "minimum_available_sessions": 1, "max_servers": 3, "reusable": true }))
}

#[tokio::test]
async fn s_12_what_is_revoked_or_expired_is_nobodys_token() {
    let now = kasm_daemon::clock::Clock::start().now();
    let (mut entries, mut texts) = (vec![], BTreeMap::new());
    for (role, expires_at) in [
        (Role::Viewer, Some(now + Duration::from_secs(3600))),
        (Role::Admin, None),
        (Role::Operator, Some(Timestamp::from_secs(now.as_secs() - 1))),
    ] {
        let new = generate_token(role.as_str()).unwrap();
        let entry = TokenEntry::from_sha256(role.as_str(), role, &new.sha256).unwrap();
        entries.push(TokenEntry { expires_at, ..entry });
        texts.insert(role, new.token.expose_secret().to_owned());
    }
    let stage = Stage::guarded(Tokens::new(entries), texts, Limits::default()).await;
    stage.as_role(Role::Viewer, "GET", "/v1/pools").send().await.expect(200);
    stage.admin("GET", "/v1/pools").send().await.expect(200);
    stage.as_role(Role::Operator, "GET", "/v1/pools").send().await.refused(401, "invalid_token");
    // A user's token is over with the very answer to the logout.
    let bob = stage.as_user("bob", "POST", "/v1/logout").await;
    bob.clone().send().await.expect(204);
    Ask { method: "GET".into(), path: "/v1/login".into(), ..bob }.send().await.refused(401, "invalid_token");
}

#[tokio::test]
async fn s_13_nobody_reaches_what_is_anothers() {
    let stage = Stage::new().await;
    stage.pool_with("one", reusable("a")).await;
    stage.pool_with("two", reusable("a")).await;
    stage.admin("POST", "/v1/workspaces").json(&json!({ "name": "desk", "pool": "one" })).send().await.expect(201);
    let own = stage.as_role(Role::User, "POST", "/v1/workspaces/desk/launch?wait=20s").send().await.expect(201);
    let id = own["id"].as_str().unwrap();
    // Every number near it, by everybody else who may call the route.
    let bob = stage.as_user("bob", "GET", "/").await;
    for number in 0..40 {
        for method in ["GET", "DELETE", "POST"] {
            let tail = if method == "POST" { "/keepalive" } else { "" };
            let path = format!("/v1/workspaces/desk/sessions/ses-{number}{tail}");
            Ask { method: method.into(), path, ..bob.clone() }.send().await.refused(404, "unknown_session");
        }
    }
    // A session is asked for in its own pool alone.
    let strange = format!("/v1/pools/two/sessions/{id}");
    stage.as_role(Role::Broker, "GET", &strange).send().await.refused(404, "unknown_session");
    stage.as_role(Role::Broker, "DELETE", &strange).send().await.refused(404, "unknown_session");
    let seen = stage.as_role(Role::Broker, "GET", &format!("/v1/pools/one/sessions/{id}")).send().await.expect(200);
    assert_eq!(seen["state"], "active", "nothing of that has ended it");
    // A machine's token is good for its own server alone, whatever the body says, and for no other route.
    let key = DeploymentKey::new([KEY_BYTE; 32]);
    let servers = |pool: &'static str| {
        let stage = &stage;
        async move { stage.admin("GET", &format!("/v1/pools/{pool}/servers")).send().await.expect(200) }
    };
    let before = (servers("one").await, servers("two").await);
    let later = stage.host.world().clock.now() + Duration::from_secs(600);
    let first = before.1["servers"][0]["id"].as_str().unwrap().parse::<ServerId>().unwrap();
    let token = checkin_token(&key, &ServerKey { pool: stage.host.pool("two").unwrap().id(), server: first }, later);
    let body = json!({ "status": "running", "status_message": "mine", "server": "srv-1", "pool": "one" });
    let path = format!("/api/set_server_status?token={token}");
    stage.bare("POST", &path).json(&body).send().await.expect(200);
    assert_eq!(servers("one").await, before.0);
    let after = servers("two").await;
    let changed = after["servers"].as_array().unwrap().iter().filter(|server| server["check_in"]["message"] == "mine");
    assert_eq!(changed.count(), 1);
    for route in ["/v1/pools", "/metrics", "/v1/workspaces"] {
        let asked = stage.bare("GET", route).header("authorization", &format!("Bearer {token}"));
        asked.send().await.refused(401, "invalid_token");
    }
}

#[tokio::test]
async fn s_14_and_s_15_check_in_tokens_forged_late_and_replayed() {
    let stage = Stage::new().await;
    let settings =
        json!({ "minimum_available_sessions": 1, "require_checkin": true, "startup_script": "'{checkin_jwt}'" });
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", settings)).send().await.expect(201);
    let token = stage.next_checkin_token().await;
    let send = |token: &str, body: Value| {
        stage.bare("POST", &format!("/api/set_server_status?token={token}")).json(&body).send()
    };
    let running = json!({ "status": "running", "status_message": "first" });
    // Every letter turned, one at a time: no two texts are the same token.
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let turned = String::from_utf8(bytes).unwrap();
        send(&turned, running.clone()).await.refused(401, "invalid_checkin_token");
    }
    let key = DeploymentKey::new([KEY_BYTE; 32]);
    let server = ServerKey { pool: stage.host.pool("office").unwrap().id(), server: ServerId::new(77) };
    let now = stage.host.world().clock.now().as_secs();
    let expired = |secs: u64| checkin_token(&key, &server, Timestamp::from_secs(now - secs));
    // Sixty seconds of leeway and no more; a good one of a server that never was is told so.
    send(&expired(50), running.clone()).await.refused(410, "server_gone");
    send(&expired(62), running.clone()).await.refused(401, "invalid_checkin_token");
    let elsewhere = checkin_token(&DeploymentKey::new([1; 32]), &server, Timestamp::from_secs(now + 60));
    send(&elsewhere, running.clone()).await.refused(401, "invalid_checkin_token");
    let nowhere = ServerKey { pool: PoolId::from_bytes([3; 16]), ..server };
    send(&checkin_token(&key, &nowhere, Timestamp::from_secs(now + 60)), running.clone())
        .await
        .refused(410, "server_gone");

    // A replay of what was said before changes nothing that matters.
    for _ in 0..3 {
        send(&token, running.clone()).await.expect(200);
    }
    let ready = |list: &Value| list["servers"].get(0).filter(|server| server["phase"] == "ready").cloned();
    stage.until("/v1/pools/office/servers", ready).await;
    send(&token, json!({ "status": "starting" })).await.expect(200);
    let still = stage.admin("GET", "/v1/pools/office/servers").send().await.expect(200);
    assert_eq!(
        (&still["servers"][0]["phase"], &still["servers"][0]["check_in"]["status"]),
        (&json!("ready"), &json!("running"))
    );
}

#[tokio::test]
async fn s_16_what_is_too_much_is_refused_at_once() {
    let limits = Limits { connections_per_address: 8, header_time: Duration::from_secs(600), ..Limits::default() };
    let stage = Stage::with(limits).await;
    // Bodies: what may hold a config, and all others.
    let large = json!({ "name": "a", "provider": "cloud", "startup_script": "x".repeat(1024 * 1024) });
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&large).send().await.refused(413, "body_too_large");
    stage
        .admin("POST", "/v1/pools")
        .json(&json!({ "name": "x".repeat(17_000) }))
        .send()
        .await
        .refused(413, "body_too_large");
    // One that only says that it is large is not waited for.
    let said = stage.admin("POST", "/v1/pools").header("content-type", "application/json");
    let head = format!(
        "POST /v1/pools HTTP/1.1\r\nhost: x\r\n{}: {}\r\ncontent-type: application/json\r\ncontent-length: 9999999999\r\n\r\n",
        said.headers[0].0, said.headers[0].1
    );
    let answer = crate::client::raw(stage.address, head.as_bytes()).await;
    assert!(String::from_utf8_lossy(&answer).contains("413"), "{}", String::from_utf8_lossy(&answer));
    // Depth.
    let deep = format!("{{\"name\": {}{}}}", "[".repeat(70), "]".repeat(70));
    let asked = stage.admin("POST", "/v1/pools").text(&deep).header("content-type", "application/json");
    asked.send().await.refused(400, "too_deep");
    // Pages of lists, names and texts.
    stage.admin("GET", "/v1/pools/office/servers?limit=1001").send().await.refused(422, "invalid");
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "x".repeat(64) })).send().await.refused(422, "invalid");

    // Connections of one address: the ninth is closed at once, and there is room again when one has gone.
    let mut held = vec![];
    for _ in 0..8 {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let mut refused = 0;
    for _ in 0..4 {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let mut answer = vec![];
        let _ = stream.read_to_end(&mut answer).await;
        refused += u32::from(answer.is_empty());
    }
    assert_eq!(refused, 4);
    drop(held);
    for _ in 0..100 {
        let answer =
            crate::client::raw(stage.address, b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        if !answer.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no room again");
}

#[tokio::test]
async fn s_17_bodies_are_taken_by_the_letter() {
    let stage = Stage::new().await;
    let send =
        |text: &str| stage.admin("POST", "/v1/pools").text(text).header("content-type", "application/json").send();
    for (text, status, code) in [
        (r#"{"name": "a", "nmae": "b"}"#, 422, "invalid"),
        (r#"{"name": "a", "name": "b"}"#, 400, "malformed_json"),
        (r#"{"name": "a", "queue_max": 1.5}"#, 422, "invalid"),
        (r#"{"name": "a", "queue_max": -1}"#, 422, "invalid"),
        (r#"{"name": "a", "queue_max": 1e400}"#, 400, "malformed_json"),
        (r#"{"name": "a", "queue_max": "1"}"#, 422, "invalid"),
        (r#"{"name": "../a"}"#, 422, "invalid"),
        (r#"{"name": "a\u0000"}"#, 422, "invalid"),
        (r#"{"name": "a"} {}"#, 400, "malformed_json"),
        (r#"["name"]"#, 422, "invalid"),
    ] {
        send(text).await.refused(status, code);
    }
    assert_eq!(stage.admin("GET", "/v1/pools").send().await.expect(200)["pools"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn s_18_a_key_is_its_callers_own() {
    let stage = Stage::new().await;
    stage.pool_with("office", reusable("a")).await;
    let ask = |role: Role, user: &str| {
        let ask = stage.as_role(role, "POST", "/v1/pools/office/sessions?wait=20s");
        ask.header("idempotency-key", "monday").json(&json!({ "user": user })).send()
    };
    let first = ask(Role::Broker, "ann").await.expect(201);
    assert_eq!(ask(Role::Broker, "ann").await.expect(200)["id"], first["id"]);
    ask(Role::Broker, "bob").await.refused(409, "idempotency_key_reused");
    // The same word of somebody else is another key: he hears nothing of ann.
    let other = ask(Role::Admin, "bob").await;
    assert!([201, 202].contains(&other.status), "{other:?}");
    let long = stage.as_role(Role::Broker, "POST", "/v1/pools/office/sessions");
    let long = long.header("idempotency-key", &"k".repeat(256)).json(&json!({ "user": "cid" }));
    long.send().await.refused(422, "invalid");
}

#[tokio::test]
async fn s_20_and_s_21_strangers_and_browsers_are_told_nothing() {
    let stage = Stage::new().await;
    let health = stage.bare("GET", "/healthz").send().await;
    assert_eq!(health.body, "ok");
    stage.bare("GET", "/metrics").send().await.refused(401, "no_token");
    stage.as_role(Role::Broker, "GET", "/metrics").send().await.refused(403, "forbidden");
    for path in ["/debug", "/v1/debug", "/metrics/", "/.env", "/admin", "/favicon.ico", "/", "/docs"] {
        stage.bare("GET", path).send().await.refused(404, "no_such_route");
    }
    // A browser that asks whether a page from elsewhere may call is given no leave.
    let preflight = stage.bare("OPTIONS", "/v1/pools").header("origin", "https://evil.example");
    let reply = preflight.header("access-control-request-method", "POST").send().await;
    assert_eq!(reply.status, 405);
    for reply in [reply, health] {
        for name in reply.headers.keys() {
            assert!(!name.starts_with("access-control") && name != "set-cookie" && name != "server", "{name}");
        }
        assert_eq!(reply.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
    }
}
