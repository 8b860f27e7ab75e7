//! What machines do: check in with their token.

use std::time::Duration;

use kasm_autoscale_core::id::{PoolId, ServerId, ServerKey};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{DeploymentKey, checkin_token};
use serde_json::{Value, json};

use crate::client::Ask;
use crate::stage::{KEY_BYTE, Stage, config};

fn status(stage: &Stage, token: &str) -> Ask {
    stage.bare("POST", &format!("/api/set_server_status?token={token}"))
}

async fn starting(stage: &Stage) -> (String, String) {
    let settings = json!({ "minimum_available_sessions": 1, "require_checkin": true, "startup_script": "Send-CheckIn -Token '{checkin_jwt}'" });
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", settings)).send().await.expect(201);
    let token = stage.next_checkin_token().await;
    let waits = |list: &Value| {
        list["servers"].get(0).filter(|server| server["missing"] == "the machine has not checked in").cloned()
    };
    let server = stage.until("/v1/pools/office/servers", waits).await;
    assert_eq!((&server["phase"], &server["check_in"]), (&json!("starting"), &Value::Null));
    assert!(server["deadline"].is_string());
    (token, format!("/v1/pools/office/servers/{}", server["id"].as_str().unwrap()))
}

#[tokio::test]
async fn a_machine_reports_its_progress_and_becomes_ready() {
    let stage = Stage::new().await;
    let (token, server) = starting(&stage).await;
    // As `Invoke-RestMethod` sends it: percent as text, and any content type.
    let reply = status(&stage, &token)
        .text(r#"{"status":"starting","status_message":"joining the domain","status_progress":"40"}"#)
        .header("content-type", "application/x-www-form-urlencoded")
        .send()
        .await;
    assert_eq!(reply.expect(200), json!({}));
    let shown = stage.admin("GET", &server).send().await.expect(200);
    assert_eq!(
        (&shown["phase"], &shown["check_in"]["status"], &shown["check_in"]["message"], &shown["check_in"]["progress"]),
        (&json!("starting"), &json!("starting"), &json!("joining the domain"), &json!(40))
    );
    // Other versions of the script send more; it is let pass.
    status(&stage, &token)
        .json(&json!({ "status": "running", "status_progress": 100, "hostname": "x" }))
        .send()
        .await
        .expect(200);
    stage.until(&server, |shown| (shown["phase"] == "ready").then_some(())).await;
}

#[tokio::test]
async fn a_bad_check_in_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    let (token, server) = starting(&stage).await;
    let before = stage.admin("GET", &server).send().await.expect(200);
    let body = json!({ "status": "running" });

    let (signed, signature) = token.rsplit_once('.').unwrap();
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    let forged = format!("{signed}.{flipped}{}", &signature[1..]);
    for bad in ["", "x", "a.b.c", &forged, &stage.tokens[&kasm_daemon::auth::Role::Admin]] {
        let reply = status(&stage, bad).json(&body).send().await;
        assert!(reply.header("www-authenticate").contains("invalid_token"));
        reply.refused(401, "invalid_checkin_token");
    }
    stage.bare("POST", "/api/set_server_status").json(&body).send().await.refused(401, "invalid_checkin_token");
    // A stranger is not told what is wrong with his body, not even that it is too large.
    status(&stage, "x").text("{").send().await.refused(401, "invalid_checkin_token");

    status(&stage, &token).text("running").send().await.refused(400, "malformed_json");
    let error = status(&stage, &token)
        .json(&json!({ "status": 1, "status_message": 2, "status_progress": "x" }))
        .send()
        .await
        .refused(422, "invalid");
    assert_eq!(error["problems"].as_array().unwrap().len(), 3);
    status(&stage, &token).json(&json!({})).send().await.refused(422, "invalid");
    let long = json!({ "status": "running", "status_message": "x".repeat(16 * 1024) });
    status(&stage, &token).json(&long).send().await.refused(413, "body_too_large");
    status(&stage, &format!("{token}&more=1")).json(&body).send().await.refused(422, "invalid");
    assert_eq!(stage.admin("GET", &server).send().await.expect(200), before);
}

#[tokio::test]
async fn a_machine_whose_server_is_gone_is_told_so() {
    let stage = Stage::new().await;
    let (token, server) = starting(&stage).await;
    let key = DeploymentKey::new([KEY_BYTE; 32]);
    let later = |secs| Timestamp::from_secs(stage.host.world().clock.now().as_secs()) + Duration::from_secs(secs);
    let pool = stage.host.pool("office").unwrap().id();
    let body = json!({ "status": "running" });
    let never = checkin_token(&key, &ServerKey { pool, server: ServerId::new(99) }, later(60));
    status(&stage, &never).json(&body).send().await.refused(410, "server_gone");
    let nowhere =
        checkin_token(&key, &ServerKey { pool: PoolId::from_bytes([1; 16]), server: ServerId::new(1) }, later(60));
    status(&stage, &nowhere).json(&body).send().await.refused(410, "server_gone");
    let expired = checkin_token(&key, &ServerKey { pool, server: ServerId::new(1) }, Timestamp::from_secs(1));
    let error = status(&stage, &expired).json(&body).send().await.refused(401, "invalid_checkin_token");
    assert!(error["message"].as_str().unwrap().contains("expired"));
    // While it is being deleted it hears 409, once it is gone 410.
    stage.provider.with_cloud(|cloud, _| {
        cloud.settings_mut().delete_time = Duration::from_millis(700)..=Duration::from_millis(700)
    });
    stage.admin("DELETE", &server).send().await.expect(202);
    status(&stage, &token).json(&body).send().await.refused(409, "check_in_too_late");
    for _ in 0..400 {
        let reply = status(&stage, &token).json(&body).send().await;
        if reply.status == 410 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never gone");
}
