//! Somebody who does nothing wrong, and must notice nothing of those who do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kasm_daemon::auth::Role;
use serde_json::json;

use crate::stage::{Stage, USER_PASSWORD};

/// Asks for sessions, keeps them, looks at them and ends them until told to stop; answers with how many requests were served.
pub(crate) async fn lives(stage: Arc<Stage>, stop: Arc<AtomicBool>) -> u64 {
    let mut served = 0;
    let mut round = 0_u64;
    while !stop.load(Ordering::Relaxed) || served < 20 {
        round += 1;
        let health = stage.bare("GET", "/healthz").send().await;
        assert_eq!((health.status, health.body.as_str()), (200, "ok"));
        let user = format!("citizen-{}", round % 3);
        let asked =
            stage.as_role(Role::Broker, "POST", "/v1/pools/good/sessions?wait=20s").json(&json!({ "user": user }));
        let reply = asked.send().await;
        assert!([200, 201].contains(&reply.status), "{reply:?}");
        let session = reply.json();
        assert_eq!((&session["state"], &session["user"]), (&json!("active"), &json!(user)), "{session}");
        assert_eq!(session["connection"]["host"], "127.0.0.1", "{session}");
        let path = format!("/v1/pools/good/sessions/{}", session["id"].as_str().unwrap());
        let kept = stage.as_role(Role::Broker, "POST", &format!("{path}/keepalive")).send().await.expect(200);
        assert_eq!(kept["server"], session["server"]);
        let seen = stage.as_role(Role::Viewer, "GET", &path).send().await.expect(200);
        assert!(seen.get("connection").is_none(), "a viewer sees no connection: {seen}");
        let ended = stage.as_role(Role::Broker, "DELETE", &path).send().await.expect(200);
        assert_eq!(ended["state"], "ended");
        let pools = stage.as_role(Role::Viewer, "GET", "/v1/pools/good").send().await.expect(200);
        assert_eq!(pools["settings"]["name"], "good");
        // A user who knows his password gets in, whatever others have tried with his name.
        if round % 50 == 1 {
            let wish = kasm_daemon::users::LoginWish {
                ldap: None,
                username: "cid".into(),
                password: USER_PASSWORD.to_owned().into(),
                address: None,
            };
            assert!(stage.users.log_in(wish).await.is_ok());
        }
        served += 6;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    served
}
