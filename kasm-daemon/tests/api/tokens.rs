//! API tokens as admins see them: made, used, revoked; and users' logins ended.

use std::time::Duration;

use kasm_daemon::auth::Role;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::client::{Ask, Reply};
use crate::stage::{Stage, config};

async fn list(stage: &Stage) -> Vec<Value> {
    stage.admin("GET", "/v1/tokens").send().await.expect(200)["tokens"].as_array().unwrap().clone()
}

async fn one(stage: &Stage, id: &Value) -> Value {
    list(stage).await.into_iter().find(|token| token["id"] == *id).unwrap()
}

async fn made(stage: &Stage, name: &str, role: &str) -> (Value, String) {
    let body = json!({ "name": name, "role": role });
    let made = stage.admin("POST", "/v1/tokens").json(&body).send().await.expect(201);
    let token = made["token"].as_str().unwrap().to_owned();
    (made["id"].clone(), token)
}

fn with(stage: &Stage, token: &str, method: &str, path: &str) -> Ask {
    stage.bare(method, path).header("authorization", &format!("Bearer {token}"))
}

async fn revoke(stage: &Stage, id: &Value) -> Reply {
    stage.admin("DELETE", &format!("/v1/tokens/{}", id.as_str().unwrap())).send().await
}

/// A connection that is kept, to ask once more on.
struct Kept(TcpStream);

impl Kept {
    async fn ask(&mut self, token: &str) -> String {
        let head = format!("GET /v1/pools HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        self.0.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let mut buffer = [0; 4096];
        let is_whole = |text: &str| text.split_once("\r\n\r\n").is_some_and(|(_, body)| body.ends_with('}'));
        while !is_whole(&answer) {
            let count = self.0.read(&mut buffer).await.unwrap();
            assert!(count > 0, "closed after {answer:?}");
            answer += std::str::from_utf8(&buffer[..count]).unwrap();
        }
        answer
    }
}

#[tokio::test]
async fn s_12_a_token_is_told_once_and_seen_in_use() {
    let stage = Stage::new().await;
    let body = json!({ "name": "broker-2", "role": "broker", "expires_at": "2099-01-31T08:00:00+01:00" });
    let reply = stage.admin("POST", "/v1/tokens").json(&body).send().await;
    assert_eq!(reply.header("cache-control"), "no-store");
    let made = reply.expect(201);
    assert_eq!(
        (&made["name"], &made["role"], &made["source"], &made["state"], &made["expires_at"], &made["last_used_at"]),
        (
            &json!("broker-2"),
            &json!("broker"),
            &json!("api"),
            &json!("accepted"),
            &json!("2099-01-31T07:00:00.000Z"),
            &Value::Null
        )
    );
    assert!(made["created_at"].is_string());
    let token = made["token"].as_str().unwrap();
    with(&stage, token, "GET", "/v1/pools").send().await.expect(200);
    with(&stage, token, "GET", "/v1/tokens").send().await.refused(403, "forbidden");
    let all = list(&stage).await;
    assert_eq!(all.len(), 5);
    assert!(all.iter().all(|one| one.get("token").is_none()));
    let seen = one(&stage, &made["id"]).await;
    assert!(seen["last_used_at"].as_str() >= seen["created_at"].as_str());
    for filed in all.iter().filter(|one| one["source"] == "file") {
        assert_eq!((&filed["state"], &filed["created_at"]), (&json!("accepted"), &Value::Null));
        // Nobody but the admin has called.
        assert_eq!(filed["last_used_at"].is_string(), filed["role"] == "admin", "{filed}");
    }
    // Neither token nor hash is told by any of this.
    let text = json!(all).to_string();
    assert!(!text.contains(token) && all.iter().all(|one| one["id"].as_str().unwrap().len() == 12));
}

#[tokio::test]
async fn s_12_what_is_revoked_is_refused_by_the_very_next_request_and_after_restarts() {
    let stage = Stage::new().await;
    let (id, token) = made(&stage, "ci", "viewer").await;
    let (_, other) = made(&stage, "ci", "viewer").await;
    let mut kept = Kept(TcpStream::connect(stage.address).await.unwrap());
    assert!(kept.ask(&token).await.starts_with("HTTP/1.1 200"));
    revoke(&stage, &id).await.expect(204);
    assert!(kept.ask(&token).await.starts_with("HTTP/1.1 401"), "on a connection that was there before");
    assert!(kept.ask(&other).await.starts_with("HTTP/1.1 200"));
    with(&stage, &token, "GET", "/v1/pools").send().await.refused(401, "invalid_token");
    let revoked = one(&stage, &id).await;
    assert_eq!(revoked["state"], "revoked");
    revoke(&stage, &id).await.expect(204);
    assert_eq!(one(&stage, &id).await, revoked, "to revoke it again changes nothing");
    // One of the config file, too.
    let viewer = list(&stage).await.into_iter().find(|one| one["name"] == "viewer").unwrap();
    stage.as_role(Role::Viewer, "GET", "/v1/pools").send().await.expect(200);
    let used = one(&stage, &viewer["id"]).await["last_used_at"].clone();
    revoke(&stage, &viewer["id"]).await.expect(204);
    stage.as_role(Role::Viewer, "GET", "/v1/pools").send().await.refused(401, "invalid_token");
    // Nothing but the end of the daemon writes when this one was used.
    stage.as_role(Role::Operator, "GET", "/v1/pools").send().await.expect(200);
    let operator = list(&stage).await.into_iter().find(|one| one["name"] == "operator").unwrap();
    assert!(operator["last_used_at"].is_string());
    drop(kept);

    let stage = stage.restarted(|_| ()).await;
    with(&stage, &token, "GET", "/v1/pools").send().await.refused(401, "invalid_token");
    with(&stage, &other, "GET", "/v1/pools").send().await.expect(200);
    stage.as_role(Role::Viewer, "GET", "/v1/pools").send().await.refused(401, "invalid_token");
    assert_eq!(one(&stage, &id).await, revoked);
    assert_eq!(one(&stage, &operator["id"]).await, operator);
    let still = one(&stage, &viewer["id"]).await;
    assert_eq!((&still["state"], &still["source"], &still["last_used_at"]), (&json!("revoked"), &json!("file"), &used));
}

#[tokio::test]
async fn s_12_a_request_that_waits_is_broken_off_when_its_token_is_revoked() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let none = config("a", json!({ "max_servers": 0 }));
    stage.admin("POST", "/v1/pools/office/configs").json(&none).send().await.expect(201);
    stage.admin("POST", "/v1/workspaces").json(&json!({ "name": "desk", "pool": "office" })).send().await.expect(201);
    let (id, token) = made(&stage, "broker-2", "broker").await;
    let asked = with(&stage, &token, "POST", "/v1/pools/office/sessions?wait=60s").json(&json!({ "user": "zoe" }));
    let waits = tokio::spawn(asked.send());
    let users = stage.as_user("bob", "POST", "/v1/workspaces/desk/launch?wait=60s").await;
    let bobs = tokio::spawn(users.clone().send());
    let pool = stage.host.pool("office").unwrap();
    while pool.look(|pool| pool.report().waiting).await.unwrap() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    revoke(&stage, &id).await.expect(204);
    waits.await.unwrap().refused(401, "invalid_token");
    assert!(!bobs.is_finished());
    let ended = stage.admin("DELETE", "/v1/logins/Bob@corp.example").send().await.expect(200);
    assert_eq!(ended, json!({ "user": "bob@corp.example", "ended": 1 }));
    bobs.await.unwrap().refused(401, "invalid_token");
    Ask { path: "/v1/login".into(), method: "GET".into(), ..users }.send().await.refused(401, "invalid_token");
    // Ann's login goes on, and so do the wishes.
    stage.as_role(Role::User, "GET", "/v1/login").send().await.expect(200);
    assert_eq!(pool.look(|pool| pool.report().waiting).await.unwrap(), 2);
    let nobody = stage.admin("DELETE", "/v1/logins/bob@corp.example").send().await;
    assert!(nobody.refused(404, "not_logged_in")["message"].as_str().unwrap().contains("ann@corp.example"));
}

#[tokio::test]
async fn the_last_admin_token_stays_until_there_is_another_one() {
    let stage = Stage::new().await;
    let own = list(&stage).await.into_iter().find(|one| one["role"] == "admin").unwrap();
    let error = revoke(&stage, &own["id"]).await.refused(409, "last_admin_token");
    assert!(error["message"].as_str().unwrap().contains("POST /v1/tokens"), "{error}");
    let (next, token) = made(&stage, "next", "admin").await;
    // Who revokes his own token is told that he has.
    revoke(&stage, &own["id"]).await.expect(204);
    stage.admin("GET", "/v1/tokens").send().await.refused(401, "invalid_token");
    let path = format!("/v1/tokens/{}", next.as_str().unwrap());
    with(&stage, &token, "DELETE", &path).send().await.refused(409, "last_admin_token");
}

#[tokio::test]
async fn mistakes_in_a_wish_for_a_token_are_named() {
    let stage = Stage::new().await;
    for (body, path) in [
        (json!({ "role": "admin" }), "name"),
        (json!({ "name": "a b", "role": "admin" }), "name"),
        (json!({ "name": "x".repeat(64), "role": "admin" }), "name"),
        (json!({ "name": "a" }), "role"),
        (json!({ "name": "a", "role": "user" }), "role"),
        (json!({ "name": "a", "role": "admin", "expires_at": "2020-01-31T08:00:00Z" }), "expires_at"),
        (json!({ "name": "a", "role": "admin", "expires_at": "tomorrow" }), "expires_at"),
        (json!({ "name": "a", "role": "admin", "expires": "2099-01-31T08:00:00Z" }), "expires"),
    ] {
        let error = stage.admin("POST", "/v1/tokens").json(&body).send().await.refused(422, "invalid");
        assert_eq!(error["problems"][0]["path"], path, "{error}");
        assert_eq!(error["problems"].as_array().unwrap().len(), 1, "{error}");
    }
    assert_eq!(list(&stage).await.len(), 4);
    stage.admin("DELETE", "/v1/tokens/0123456789ab").send().await.refused(404, "unknown_token");
}
