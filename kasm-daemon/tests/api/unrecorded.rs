//! An audit log that cannot be written: nothing is changed and nothing secret is told, and what is only read goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kasm_daemon::api::access::{Access, ROUTES};
use kasm_daemon::auth::Role;
use serde_json::{Value, json};

use crate::refusing::Refusing;
use crate::stage::{PASSWORD, Stage, USER_PASSWORD, config};

fn path_of(route: &str, config: &str) -> String {
    route
        .replace("{pool}", "office")
        .replace("{config}", config)
        .replace("{server}", "srv-1")
        .replace("{session}", "ses-1")
        .replace("{workspace}", "made")
        .replace("{user}", "bob@corp.example")
}

/// All that can be read of what calls may change, but for what changes by itself.
async fn seen(stage: &Stage) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for path in [
        "/v1/pools",
        "/v1/pools/office/configs",
        "/v1/pools/office/servers",
        "/v1/pools/office/sessions",
        "/v1/workspaces",
    ] {
        let mut value = stage.as_role(Role::Viewer, "GET", path).send().await.expect(200);
        strip(&mut value);
        all.insert(path.to_owned(), value);
    }
    all
}

/// Without what a moment later is another.
fn strip(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| key != "probed_at" && key != "seen_at");
            object.values_mut().for_each(strip);
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}

#[tokio::test]
async fn s_22_what_cannot_be_recorded_is_not_done_and_not_told() {
    let mut kept = None;
    let stage = Stage::stored(|store| {
        let store = Arc::new(Refusing::new(store));
        kept = Some(store.clone());
        store
    })
    .await;
    let store = kept.unwrap();
    let settings = json!({ "minimum_available_sessions": 1, "connection_password": { "secret": "rdp-password" } });
    stage.pool_with("office", config("a", settings)).await;
    stage
        .as_role(Role::Broker, "POST", "/v1/pools/office/sessions")
        .json(&json!({ "user": "ann" }))
        .send()
        .await
        .expect(201);
    stage.admin("POST", "/v1/workspaces").json(&json!({ "name": "made", "pool": "office" })).send().await.expect(201);
    let bob = stage.as_user("bob", "GET", "/v1/login").await;
    let tokens = stage.admin("GET", "/v1/tokens").send().await.expect(200)["tokens"].as_array().unwrap().clone();
    let viewer = tokens.iter().find(|token| token["name"] == "viewer").unwrap()["id"].as_str().unwrap();

    store.entries.store(true, Ordering::SeqCst);
    let before = seen(&stage).await;
    let (mut alone, mut with_fact, mut others) = (0, 0, 0);
    for route in ROUTES {
        let Access::Roles(roles) = route.access else { continue };
        if route.method == "GET" || route.path.ends_with("/keepalive") {
            continue;
        }
        let body = match route.path {
            "/v1/pools" | "/v1/workspaces" => json!({ "name": "new", "pool": "office" }),
            "/v1/pools/{pool}/configs" => config("new", json!({})),
            path if path.ends_with("{config}") => config("a", json!({ "max_servers": 2 })),
            "/v1/tokens" => json!({ "name": "new", "role": "admin" }),
            path if path.ends_with("/sessions") => json!({ "user": "cid" }),
            _ => json!({}),
        };
        let role = roles[roles.len() - 1];
        let path = path_of(route.path, "a").replace("{token}", viewer);
        let reply = stage.as_role(role, route.method, &path).json(&body).send().await;
        let what = format!("{role} {} {}: {reply:?}", route.method, route.path);
        assert!(!reply.body.contains("canary"), "{what}");
        if reply.status == 404 && route.path.contains("/sessions/") && role == Role::User {
            // It is another user's session: there was nothing to do.
            others += 1;
            continue;
        }
        assert_eq!(reply.status, 503, "{what}");
        match reply.json()["error"]["code"].as_str().unwrap() {
            "not_recorded" => alone += 1,
            "not_saved" => with_fact += 1,
            other => panic!("{other}: {what}"),
        }
    }
    // Each of them is one of these, or the test would have ended.
    assert!(alone >= 20 && with_fact >= 3 && others <= 1, "{alone} {with_fact} {others}");
    assert_eq!(seen(&stage).await, before, "nothing has changed");
    let after = stage.admin("GET", "/v1/tokens").send().await.expect(200);
    assert_eq!(after["tokens"].as_array().unwrap().len(), tokens.len(), "no token was made");
    // Nothing secret is told, and nobody gets in.
    for path in ["/v1/pools/office/sessions/ses-1", "/v1/pools/office/sessions/ses-1?format=guacamole"] {
        let reply = stage.as_role(Role::Broker, "GET", path).send().await;
        assert!(!reply.body.contains(PASSWORD) && !reply.body.contains("canary"), "{reply:?}");
        reply.refused(503, "not_recorded");
    }
    stage.as_role(Role::Viewer, "GET", "/v1/pools/office/sessions/ses-1").send().await.expect(200);
    let reply = stage.login("bob", USER_PASSWORD).send().await;
    assert!(!reply.body.contains("kasmu_"), "{reply:?}");
    reply.refused(503, "not_recorded");
    bob.clone().send().await.expect(200);
    // Who is not let in is told so all the same.
    stage.bare("GET", "/v1/pools").send().await.refused(401, "no_token");
    stage.as_role(Role::Viewer, "POST", "/v1/pools").send().await.refused(403, "forbidden");

    let metrics = stage.admin("GET", "/metrics").send().await.body;
    // With two passwords and a login.
    let counted = format!("kasm_autoscale_unrecorded_calls_total {}\n", alone + 3);
    assert!(metrics.contains(&counted), "{counted}: {metrics}");

    store.entries.store(false, Ordering::SeqCst);
    let again = stage.as_role(Role::Broker, "GET", "/v1/pools/office/sessions/ses-1").send().await.expect(200);
    assert_eq!(again["connection"]["password"], PASSWORD);
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "new" })).send().await.expect(201);
}
