//! What callers get wrong: each mistake has its status, and all have one shape.

use serde_json::json;

use crate::client::{Reply, raw};
use crate::stage::{Stage, config};

#[tokio::test]
async fn every_mistake_has_its_status() {
    let stage = Stage::new().await;
    let post = |path: &str| stage.admin("POST", path);
    let error = post("/v1/pools")
        .text("{\"name\": ")
        .header("content-type", "application/json")
        .send()
        .await
        .refused(400, "malformed_json");
    assert!(error["message"].as_str().unwrap().contains("line 1 column"), "{error}");
    let twice =
        post("/v1/pools").text(r#"{"name": "a", "name": "b"}"#).header("content-type", "application/json").send().await;
    assert!(twice.refused(400, "malformed_json")["message"].as_str().unwrap().contains("\"name\" stands there twice"));
    post("/v1/pools").text("[]").header("content-type", "application/json").send().await.refused(422, "invalid");
    post("/v1/pools").send().await.refused(415, "not_json");
    post("/v1/pools").text("{}").header("content-type", "text/plain").send().await.refused(415, "not_json");
    post("/v1/pools")
        .text(r#"{"name": "u"}"#)
        .header("content-type", "Application/JSON; charset=utf-8")
        .send()
        .await
        .expect(201);
    let error =
        post("/v1/pools").json(&json!({ "nmae": "a", "queue_max": "many" })).send().await.refused(422, "invalid");
    let problems: Vec<&str> =
        error["problems"].as_array().unwrap().iter().map(|problem| problem["path"].as_str().unwrap()).collect();
    assert_eq!(problems, ["name", "queue_max", "nmae"]);
    let error = post("/v1/pools/filed/sessions")
        .json(&json!({ "zone": "a b", "usr": "x" }))
        .send()
        .await
        .refused(422, "invalid");
    assert_eq!(error["problems"].as_array().unwrap().len(), 3, "{error}");
    for user in [json!(""), json!("a\nb"), json!(7), json!("x".repeat(257))] {
        post("/v1/pools/filed/sessions").json(&json!({ "user": user })).send().await.refused(422, "invalid");
    }

    let get = |path: &str| stage.admin("GET", path);
    get("/v2/pools").send().await.refused(404, "no_such_route");
    get("/v1/pools/").send().await.refused(404, "no_such_route");
    get("/v1/pools/nowhere/servers").send().await.refused(404, "unknown_pool");
    get("/v1/pools/%ff").send().await.refused(400, "bad_request");
    let error = get("/v1/pools/%1b%5b31m%0a").send().await.refused(404, "unknown_pool");
    assert!(error["message"].as_str().unwrap().contains(r"\u{1b}[31m\n"), "{error}");
    for id in ["srv-1", "srv-99999999999999999999", "1", "..", "srv--1"] {
        get(&format!("/v1/pools/filed/servers/{id}")).send().await.refused(404, "unknown_server");
    }
    let reply = stage.admin("PATCH", "/v1/pools").send().await;
    let allow = reply.header("allow").to_owned();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
    reply.refused(405, "method_not_allowed");
    for (query, count) in
        [("limit=0&phase=asleep&after=7&x=1", 4), ("limit=1001", 1), ("limit=1&limit=2", 1), ("config=a%20b", 1)]
    {
        let error = get(&format!("/v1/pools/filed/servers?{query}")).send().await.refused(422, "invalid");
        assert_eq!(error["problems"].as_array().unwrap().len(), count, "{error}");
    }
    post("/v1/pools/filed/sessions?wait=61s").json(&json!({ "user": "a" })).send().await.refused(422, "invalid");
    get("/v1/pools?limit=1").send().await.refused(422, "invalid");
    get("/v1/pools/filed/events?before=x").send().await.refused(422, "invalid");
    stage.admin("DELETE", "/v1/pools/filed/servers/srv-1?force=1").send().await.refused(422, "invalid");
}

#[tokio::test]
async fn bodies_are_bounded_whether_they_say_their_length_or_not() {
    let stage = Stage::new().await;
    let large = json!({ "name": "x".repeat(16 * 1024) });
    let error = stage.admin("POST", "/v1/pools").json(&large).send().await.refused(413, "body_too_large");
    assert!(error["message"].as_str().unwrap().contains("16384 bytes"));
    // A config may be larger: this script has some 200 KiB.
    let script = config("a", json!({ "max_servers": 0, "startup_script": "# x\n".repeat(50_000) }));
    stage.admin("POST", "/v1/pools/filed/configs").json(&script).send().await.expect(201);
    let huge = json!({ "name": "x".repeat(1024 * 1024) });
    stage.admin("POST", "/v1/pools/filed/configs").json(&huge).send().await.refused(413, "body_too_large");

    let token = &stage.tokens[&kasm_daemon::auth::Role::Admin];
    let mut text = format!(
        "POST /v1/pools HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    for _ in 0..5 {
        text += &format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    }
    text += "0\r\n\r\n";
    let reply = Reply::parse(&raw(stage.address, text.as_bytes()).await);
    assert_eq!(reply.status, 413, "{reply:?}");
}

#[tokio::test]
async fn answers_carry_headers_that_keep_browsers_in_bounds() {
    let stage = Stage::new().await;
    for (method, path) in [("GET", "/healthz"), ("GET", "/openapi.json"), ("GET", "/v1/pools"), ("GET", "/nowhere")] {
        let reply = stage.bare(method, path).send().await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert!(reply.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(reply.header("access-control-allow-origin").is_empty(), "{path}");
        assert!(reply.header("x-request-id").starts_with("req-"), "{path}");
    }
}

#[tokio::test]
async fn of_two_who_make_the_same_thing_at_once_one_is_told() {
    let stage = Stage::new().await;
    for round in 0..5 {
        let pools = [0, 1, 2, 3].map(|_| {
            tokio::spawn(stage.admin("POST", "/v1/pools").json(&json!({ "name": format!("p{round}") })).send())
        });
        let mut statuses = vec![];
        for pool in pools {
            statuses.push(pool.await.unwrap().status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409]);
        let path = format!("/v1/pools/p{round}/configs");
        let configs = [0, 1, 2, 3]
            .map(|_| tokio::spawn(stage.admin("POST", &path).json(&config("a", json!({ "max_servers": 0 }))).send()));
        let mut statuses = vec![];
        for config in configs {
            statuses.push(config.await.unwrap().status);
        }
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409, 409]);
    }
}

#[cfg(feature = "script-check")]
#[tokio::test]
async fn a_script_that_does_not_look_like_powershell_is_warned_of() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "scripts" })).send().await.expect(201);
    let set = async |name: &str, script: &str| {
        let body = config(name, json!({ "max_servers": 0, "startup_script": script }));
        stage.admin("POST", "/v1/pools/scripts/configs").json(&body).send().await.expect(201)["warnings"].clone()
    };
    assert_eq!(set("good", "if ($true) {{ Get-Date }}").await, json!([]));
    let warnings = set("bad", "Get-Date\nif ($true) {{ Get-Date").await;
    assert_eq!(warnings[0]["path"], "startup_script", "{warnings}");
    assert!(warnings[0]["given"].as_str().unwrap().starts_with("line 2, column "), "{warnings}");
}
