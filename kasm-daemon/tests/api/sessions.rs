//! What brokers do: ask, wait, connect, keep alive, end.

use kasm_daemon::auth::Role;
use serde_json::{Value, json};

use crate::client::{Ask, Reply};
use crate::stage::{PASSWORD, Stage, config};

fn ask(stage: &Stage, user: &str) -> Ask {
    stage.as_role(Role::Broker, "POST", "/v1/pools/office/sessions").json(&json!({ "user": user }))
}

#[tokio::test]
async fn a_user_gets_a_session_and_another_waits_for_it() {
    let stage = Stage::new().await;
    let server = stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 1, "reusable": true, "connection_username": "{sso_username}", "connection_password": "{sso_cred}", "connection_info": { "quality": 7 } }))).await;
    let broker = |method: &str, path: &str| stage.as_role(Role::Broker, method, path);

    let ann = ask(&stage, "CORP\\ann").send().await;
    let path = ann.header("location").to_owned();
    let ann = ann.expect(201);
    assert_eq!(path, format!("/v1/pools/office/sessions/{}", ann["id"].as_str().unwrap()));
    assert_eq!((&ann["state"], &ann["server"], &ann["user"]), (&json!("active"), &server["id"], &json!("CORP\\ann")));
    assert_eq!(
        ann["connection"],
        json!({
            "type": "rdp", "host": "127.0.0.1", "port": server["address"]["port"], "credentials": "sso", "username": "CORP\\ann", "password": null, "info": { "quality": 7 },
        })
    );
    assert!(ann.get("position").is_none() && ann.get("reason").is_none());
    // To ask again answers with the one there is; not as new.
    let again = ask(&stage, "CORP\\ann").send().await;
    assert_eq!(again.header("location"), "");
    assert_eq!(again.expect(200)["id"], ann["id"]);

    let bob = ask(&stage, "bob").send().await;
    let bob_path = bob.header("location").to_owned();
    let bob = bob.expect(202);
    assert_eq!((&bob["state"], &bob["position"]), (&json!("waiting"), &json!(1)));
    assert!(bob.get("connection").is_none() && bob["deadline"].is_string());
    assert_eq!(ask(&stage, "cid").send().await.expect(202)["position"], 2);
    let list = broker("GET", "/v1/pools/office/sessions?state=waiting").send().await.expect(200);
    let positions: Vec<&Value> =
        list["sessions"].as_array().unwrap().iter().map(|session| &session["position"]).collect();
    assert_eq!(positions, [1, 2]);

    // A wait that is too short ends as a wait, one that is long enough ends as soon as the session is there.
    let short = broker("GET", &format!("{bob_path}?wait=50ms")).send().await.expect(200);
    assert_eq!(short["state"], "waiting");
    let long = tokio::spawn(broker("GET", &format!("{bob_path}?wait=30s")).send());
    let kept = broker("POST", &format!("{path}/keepalive")).send().await.expect(200);
    assert!(kept["expires_at"].as_str() >= ann["expires_at"].as_str());
    let ended = broker("DELETE", &path).send().await.expect(200);
    assert_eq!((&ended["state"], &ended["reason"]), (&json!("ended"), &json!("requested")));
    assert!(ended.get("connection").is_none());
    let placed = long.await.unwrap().expect(200);
    assert_eq!((&placed["state"], &placed["connection"]["username"]), (&json!("active"), &json!("bob")));

    assert_eq!(broker("DELETE", &path).send().await.expect(200)["state"], "ended", "to end it again is no error");
    broker("POST", &format!("{path}/keepalive")).send().await.refused(409, "session_ended");
    for (method, path) in
        [("GET", "ses-99"), ("DELETE", "ses-99"), ("POST", "ses-99/keepalive"), ("GET", "x"), ("DELETE", "srv-1")]
    {
        let error =
            broker(method, &format!("/v1/pools/office/sessions/{path}")).send().await.refused(404, "unknown_session");
        assert!(error["message"].as_str().unwrap().contains("/v1/pools/office/sessions lists"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_that_waits_comes_with_the_session() {
    let stage = Stage::new().await;
    // Nothing is kept free: the first request makes the first server.
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", json!({}))).send().await.expect(201);
    let request = stage
        .as_role(Role::Broker, "POST", "/v1/pools/office/sessions?wait=30s")
        .json(&json!({ "user": "ann", "zone": "west" }));
    let ann = request.send().await.expect(201);
    assert_eq!(
        (&ann["state"], &ann["zone"], &ann["connection"]["credentials"]),
        (&json!("active"), &json!("west"), &json!("prompt"))
    );
    assert_eq!((&ann["connection"]["username"], &ann["connection"]["password"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_token_and_one_request() {
    let stage = Stage::new().await;
    stage
        .pool_with(
            "office",
            config("a", json!({ "minimum_available_sessions": 2, "max_sessions_per_server": 5, "reusable": true })),
        )
        .await;
    let keyed = |role: Role, user: &str, key: &str| {
        stage
            .as_role(role, "POST", "/v1/pools/office/sessions")
            .json(&json!({ "user": user }))
            .header("idempotency-key", key)
    };
    let first = keyed(Role::Broker, "ann", "k1").send().await.expect(201);
    assert_eq!(keyed(Role::Broker, "ann", "k1").send().await.expect(200)["id"], first["id"]);
    let error = keyed(Role::Broker, "bob", "k1").send().await.refused(409, "idempotency_key_reused");
    assert!(error["message"].as_str().unwrap().contains("use a new key"));
    // The same key from another caller is another key.
    keyed(Role::Admin, "bob", "k1").send().await.expect(201);
    // What has ended is still the answer to its key, and a new key makes a new session.
    let path = format!("/v1/pools/office/sessions/{}", first["id"].as_str().unwrap());
    stage.as_role(Role::Broker, "DELETE", &path).send().await.expect(200);
    let replayed = keyed(Role::Broker, "ann", "k1").send().await.expect(200);
    assert_eq!((&replayed["id"], &replayed["state"]), (&first["id"], &json!("ended")));
    assert_ne!(keyed(Role::Broker, "ann", "k2").send().await.expect(201)["id"], first["id"]);
    // Any length that is allowed fits, and nothing else is.
    keyed(Role::Broker, "dora", &"k".repeat(255)).send().await.expect(201);
    for wrong in [String::new(), "k".repeat(256), "k\u{e4}".into()] {
        let error = keyed(Role::Broker, "eve", &wrong).send().await.refused(422, "invalid");
        assert_eq!(error["problems"][0]["path"], "Idempotency-Key");
    }
    keyed(Role::Broker, "eve", "one").header("idempotency-key", "two").send().await.refused(422, "invalid");
}

#[tokio::test]
async fn only_brokers_and_admins_see_how_to_connect() {
    let stage = Stage::new().await;
    stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 1, "connection_username": "kasm", "connection_password": { "secret": "rdp-password" } }))).await;
    let ann = ask(&stage, "ann").send().await.expect(201);
    assert_eq!(
        (&ann["connection"]["credentials"], &ann["connection"]["username"], &ann["connection"]["password"]),
        (&json!("static"), &json!("kasm"), &json!(PASSWORD))
    );
    let path = format!("/v1/pools/office/sessions/{}", ann["id"].as_str().unwrap());
    for role in Role::OF_TOKENS {
        let shown = stage.as_role(role, "GET", &path).send().await;
        assert_eq!(shown.header("cache-control"), "no-store");
        let told = shown.expect(200).get("connection").is_some();
        assert_eq!(told, matches!(role, Role::Broker | Role::Admin), "{role}");
        let list = stage.as_role(role, "GET", "/v1/pools/office/sessions").send().await.expect(200);
        assert_eq!(list["sessions"][0]["id"], ann["id"]);
        assert!(list["sessions"][0].get("connection").is_none(), "no list of passwords for {role}");
    }
    // An operator may end it, and is not told the password by that either.
    let ended = stage.as_role(Role::Operator, "DELETE", &path).send().await;
    assert!(!ended.body.contains("canary"));
    ended.expect(200);
}

#[tokio::test]
async fn sessions_are_listed_in_pages_and_by_user() {
    let stage = Stage::new().await;
    stage
        .pool_with(
            "office",
            config("a", json!({ "minimum_available_sessions": 5, "max_sessions_per_server": 5, "reusable": true })),
        )
        .await;
    for user in ["a", "b", "c", "d", "e"] {
        ask(&stage, user).send().await.expect(201);
    }
    let broker = |query: &str| stage.as_role(Role::Broker, "GET", &format!("/v1/pools/office/sessions{query}"));
    let mut users = vec![];
    let mut after = String::new();
    loop {
        let page = broker(&format!("?limit=2{after}")).send().await.expect(200);
        assert!(page["sessions"].as_array().unwrap().len() <= 2);
        users.extend(
            page["sessions"].as_array().unwrap().iter().map(|session| session["user"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(users, ["a", "b", "c", "d", "e"]);
    let one = broker("?user=c&state=active").send().await.expect(200);
    assert_eq!((one["sessions"].as_array().unwrap().len(), &one["sessions"][0]["user"]), (1, &json!("c")));
    assert_eq!(broker("?state=ended").send().await.expect(200)["sessions"], json!([]));
}

#[tokio::test]
async fn a_pool_that_cannot_serve_says_so() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office", "queue_max": 1 })).send().await.expect(201);
    let error = ask(&stage, "ann").send().await.refused(409, "nothing_to_serve");
    assert!(error["message"].as_str().unwrap().contains("no enabled autoscale config"));
    stage
        .admin("POST", "/v1/pools/office/configs")
        .json(&config("a", json!({ "max_servers": 0 })))
        .send()
        .await
        .expect(201);
    ask(&stage, "ann").send().await.expect(202);
    let full: Reply = ask(&stage, "bob").send().await;
    assert_eq!(full.header("retry-after"), "5");
    let error = full.refused(429, "queue_full");
    assert_eq!(error["message"], "1 session requests are waiting, 1 at most may; try again later");
}
