//! What operators do: pools, configs, servers, and the question why.

use kasm_daemon::auth::Role;
use serde_json::{Value, json};

use crate::stage::{Stage, config};

#[tokio::test]
async fn an_operator_makes_changes_and_forgets_a_pool() {
    let stage = Stage::new().await;
    let operator = |method: &str, path: &str| stage.as_role(Role::Operator, method, path);
    let made = operator("POST", "/v1/pools").json(&json!({ "name": "office", "queue_deadline": "90s" })).send().await;
    assert_eq!(made.header("location"), "/v1/pools/office");
    let made = made.expect(201);
    assert_eq!(
        made["settings"],
        json!({
            "name": "office", "type": "server", "placement": "spread", "queue_deadline": "1m30s", "queue_max": 10_000, "keepalive_expiry": "1h",
        })
    );
    assert_eq!((&made["declared"], &made["totals"]["servers"]), (&json!(false), &json!(0)));

    let error =
        operator("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.refused(409, "pool_exists");
    assert_eq!(error["message"], "there is a pool office already");

    let list = operator("GET", "/v1/pools").send().await.expect(200);
    let names: Vec<&Value> = list["pools"].as_array().unwrap().iter().map(|pool| &pool["name"]).collect();
    assert_eq!(names, ["filed", "office"]);

    let changed = operator("PUT", "/v1/pools/office").json(&json!({ "placement": "pack" })).send().await.expect(200);
    assert_eq!(
        (&changed["settings"]["placement"], &changed["settings"]["queue_deadline"]),
        (&json!("pack"), &json!("10m")),
        "what is left out gets its default"
    );
    assert_eq!(operator("GET", "/v1/pools/office").send().await.expect(200), changed);
    let error =
        operator("PUT", "/v1/pools/office").json(&json!({ "name": "other" })).send().await.refused(422, "invalid");
    assert_eq!(error["problems"][0]["path"], "name");

    operator("POST", "/v1/pools/office/configs")
        .json(&config("a", json!({ "max_servers": 0 })))
        .send()
        .await
        .expect(201);
    operator("DELETE", "/v1/pools/office").send().await.refused(409, "pool_not_empty");
    operator("DELETE", "/v1/pools/office/configs/a").send().await.expect(202);
    // Until its provider has shown that it holds nothing of the pool's.
    let mut tries = 0;
    let gone = loop {
        let reply = operator("DELETE", "/v1/pools/office").send().await;
        tries += 1;
        if reply.status == 204 || tries == 400 {
            break reply;
        }
        reply.refused(409, "pool_not_empty");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(gone.expect(204), Value::Null);
    let error = operator("GET", "/v1/pools/office").send().await.refused(404, "unknown_pool");
    assert_eq!(error["message"], "there is no pool \"office\"; there are filed");
}

#[tokio::test]
async fn an_operator_adds_edits_disables_and_removes_a_config() {
    let stage = Stage::new().await;
    let operator = |method: &str, path: &str| stage.as_role(Role::Operator, method, path);
    operator("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);

    let all_wrong = json!({ "name": "a b", "provider": "cloud", "max_servers": -1, "connection_type": "telnet", "reusible": true, "downscale_backoff": "soon", "connection_password": "hunter2" });
    let reply = operator("POST", "/v1/pools/office/configs").json(&all_wrong).send().await;
    assert!(!reply.body.contains("hunter2"));
    let error = reply.refused(422, "invalid");
    let paths: Vec<&str> =
        error["problems"].as_array().unwrap().iter().map(|problem| problem["path"].as_str().unwrap()).collect();
    assert_eq!(
        paths,
        ["name", "connection_type", "connection_password", "max_servers", "downscale_backoff", "reusible"],
        "all mistakes at once"
    );
    let error = operator("POST", "/v1/pools/office/configs")
        .json(&json!({ "name": "a", "provider": "nobody", "connection_password": { "secret": "none" } }))
        .send()
        .await
        .refused(422, "invalid");
    assert_eq!(error["problems"].as_array().unwrap().len(), 2);
    let error = operator("POST", "/v1/pools/office/configs")
        .json(&config("a", json!({ "machine": { "sise": "x" } })))
        .send()
        .await
        .refused(422, "invalid");
    assert_eq!(error["problems"][0]["path"], "machine.sise");

    let body = config("a", json!({ "max_servers": 0, "minimum_available_sessions": 2, "downscale_backoff": "90s" }));
    let made = operator("POST", "/v1/pools/office/configs").json(&body).send().await;
    assert_eq!(made.header("location"), "/v1/pools/office/configs/a");
    let made = made.expect(201);
    assert_eq!((&made["generation"], &made["declared"]), (&json!(1), &json!(false)));
    assert_eq!(
        (&made["config"]["downscale_backoff"], &made["config"]["connection_port"]),
        (&json!("1m30s"), &json!(3389))
    );
    assert_eq!(made["warnings"][0]["path"], "max_servers");
    operator("POST", "/v1/pools/office/configs").json(&body).send().await.refused(409, "config_exists");

    // What was read can be put back as it is, and that changes nothing.
    let same = operator("PUT", "/v1/pools/office/configs/a").json(&made["config"]).send().await.expect(200);
    assert_eq!(same, made);
    let edited = operator("PUT", "/v1/pools/office/configs/a")
        .json(&json!({ "provider": "cloud", "max_servers": 0 }))
        .send()
        .await
        .expect(200);
    assert_eq!(
        (&edited["generation"], &edited["config"]["minimum_available_sessions"], &edited["warnings"]),
        (&json!(2), &json!(0), &json!([]))
    );
    operator("PUT", "/v1/pools/office/configs/a").json(&config("b", json!({}))).send().await.refused(422, "invalid");
    let error = operator("PUT", "/v1/pools/office/configs/b")
        .json(&config("b", json!({})))
        .send()
        .await
        .refused(404, "unknown_config");
    assert_eq!(error["message"], "pool office has no config \"b\"; there are a");

    let off = operator("POST", "/v1/pools/office/configs/a/disable").send().await.expect(200);
    assert_eq!((&off["config"]["enabled"], &off["generation"]), (&json!(false), &json!(3)));
    let on = operator("POST", "/v1/pools/office/configs/a/enable").send().await.expect(200);
    assert_eq!(on["config"]["enabled"], true);
    assert_eq!(operator("GET", "/v1/pools/office/configs").send().await.expect(200)["configs"], json!([on]));
    let gone = operator("DELETE", "/v1/pools/office/configs/a").send().await.expect(202);
    assert_eq!(gone, json!({ "config": "a", "servers": 0 }));
    operator("GET", "/v1/pools/office/configs/a").send().await.refused(404, "unknown_config");
    operator("DELETE", "/v1/pools/office/configs/a").send().await.refused(404, "unknown_config");
}

#[tokio::test]
async fn what_the_config_file_declares_is_changed_there() {
    let stage = Stage::new().await;
    let shown = stage.admin("GET", "/v1/pools/filed/configs/stone").send().await.expect(200);
    assert_eq!(shown["declared"], true);
    for (method, path, body) in [
        ("PUT", "/v1/pools/filed", Some(json!({ "placement": "pack" }))),
        ("DELETE", "/v1/pools/filed", None),
        ("PUT", "/v1/pools/filed/configs/stone", Some(config("stone", json!({})))),
        ("POST", "/v1/pools/filed/configs/stone/disable", None),
        ("POST", "/v1/pools/filed/configs/stone/enable", None),
        ("DELETE", "/v1/pools/filed/configs/stone", None),
    ] {
        let ask = stage.admin(method, path);
        let ask = if let Some(body) = body { ask.json(&body) } else { ask };
        let error = ask.send().await.refused(409, "declared");
        assert!(
            error["message"].as_str().unwrap().contains("is declared in the config file; change it there"),
            "{error}"
        );
    }
    assert_eq!(stage.admin("GET", "/v1/pools/filed/configs/stone").send().await.expect(200), shown);
    // Beside it there is room for others.
    stage
        .admin("POST", "/v1/pools/filed/configs")
        .json(&config("sand", json!({ "max_servers": 0 })))
        .send()
        .await
        .expect(201);
}

#[tokio::test]
async fn an_operator_looks_at_servers_drains_undrains_and_deletes_them() {
    let stage = Stage::new().await;
    let settings = json!({ "minimum_available_sessions": 3, "max_servers": 3, "reusable": true, "zone": "west" });
    stage.pool_with("office", config("a", settings)).await;
    let operator = |method: &str, path: &str| stage.as_role(Role::Operator, method, path);
    let all = stage
        .until("/v1/pools/office/servers?phase=ready", |list| {
            (list["servers"].as_array()?.len() == 3).then(|| list["servers"].clone())
        })
        .await;
    let first = &all[0];
    assert_eq!((&first["config"], &first["zone"], &first["provider"]), (&json!("a"), &json!("west"), &json!("cloud")));
    assert_eq!(
        (&first["generation"], &first["out_of_date"], &first["sessions"], &first["missing"]),
        (&json!(1), &json!(false), &json!(0), &Value::Null)
    );
    assert!(first["name"].as_str().unwrap().starts_with("kasm-"));
    assert_eq!(first["address"]["host"], "127.0.0.1");
    assert!(first["machine"].is_string() && first["created_at"].as_str().unwrap().ends_with('Z'));

    // Pages, one after the other, are the whole.
    let mut paged = vec![];
    let mut after = String::new();
    loop {
        let page = operator("GET", &format!("/v1/pools/office/servers?limit=2{after}")).send().await.expect(200);
        paged.extend(page["servers"].as_array().unwrap().iter().map(|server| server["id"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let ids: Vec<Value> = all.as_array().unwrap().iter().map(|server| server["id"].clone()).collect();
    assert_eq!(paged, ids);
    assert_eq!(operator("GET", "/v1/pools/office/servers?config=b").send().await.expect(200)["servers"], json!([]));
    assert_eq!(
        operator("GET", "/v1/pools/office/servers?phase=creating").send().await.expect(200)["servers"],
        json!([])
    );

    let path = format!("/v1/pools/office/servers/{}", first["id"].as_str().unwrap());
    assert_eq!(operator("GET", &path).send().await.expect(200)["id"], first["id"]);
    operator("POST", &format!("{path}/undrain")).send().await.refused(409, "not_draining");
    // With a session on it, it cannot go at once, so that the drain can be seen and taken back.
    let mut on_first = None;
    for user in ["u1", "u2", "u3"] {
        let session = stage
            .as_role(Role::Broker, "POST", "/v1/pools/office/sessions")
            .json(&json!({ "user": user }))
            .send()
            .await
            .expect(201);
        if session["server"] == first["id"] {
            on_first = session["id"].as_str().map(str::to_owned);
        }
    }
    let on_first = on_first.expect("three users were spread over three servers");
    let drained = operator("POST", &format!("{path}/drain")).send().await.expect(200);
    assert_eq!(
        (&drained["phase"], &drained["why"], &drained["sessions"]),
        (&json!("draining"), &json!("asked by an operator"), &json!(1))
    );
    assert_eq!(operator("POST", &format!("{path}/undrain")).send().await.expect(200)["phase"], "ready");
    let error = operator("DELETE", &path).send().await.refused(409, "has_sessions");
    assert!(error["message"].as_str().unwrap().contains("1 sessions"));
    let deleted = operator("DELETE", &format!("{path}?force=true")).send().await.expect(202);
    assert!(["deleting", "gone"].contains(&deleted["phase"].as_str().unwrap()), "{deleted}");
    let session = operator("GET", &format!("/v1/pools/office/sessions/{on_first}")).send().await.expect(200);
    assert_eq!((&session["state"], &session["reason"]), (&json!("ended"), &json!("an operator deleted the server")));
    for _ in 0..400 {
        let reply = operator("DELETE", &path).send().await;
        if reply.status == 404 {
            let error = reply.refused(404, "unknown_server");
            assert!(error["message"].as_str().unwrap().contains("/v1/pools/office/servers lists"));
            return;
        }
        reply.expect(202);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the server never went");
}

#[tokio::test]
async fn a_server_born_before_an_edit_is_shown_as_out_of_date() {
    let stage = Stage::new().await;
    stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 1 }))).await;
    stage
        .admin("PUT", "/v1/pools/office/configs/a")
        .json(&config("a", json!({ "minimum_available_sessions": 1, "connection_port": 3390 })))
        .send()
        .await
        .expect(200);
    let server = stage.admin("GET", "/v1/pools/office/servers").send().await.expect(200)["servers"][0].clone();
    assert_eq!((&server["generation"], &server["out_of_date"]), (&json!(1), &json!(true)));
}

#[tokio::test]
async fn the_pool_says_why() {
    let stage = Stage::new().await;
    stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 2 }))).await;
    let viewer = |path: &str| stage.as_role(Role::Viewer, "GET", path);
    let why = viewer("/v1/pools/office/why?limit=2").send().await.expect(200);
    let config = &why["configs"][0];
    assert_eq!(
        (&config["config"], &config["supply"]["free"], &config["supply"]["target"]),
        (&json!("a"), &json!(1), &json!(2))
    );
    let decision = &config["decision"];
    assert_eq!(decision["value"]["decision"], "wait");
    assert_eq!(decision["value"]["because"], json!({ "waiting": "cap_reached", "live": 1, "max": 1 }));
    assert!(decision["words"].as_str().unwrap().contains("max_servers reached (1 of 1)"), "{decision}");
    assert!(
        decision["at"].as_str().unwrap().starts_with("20") && decision["at"].as_str().unwrap().ends_with('Z'),
        "{decision}"
    );
    assert_eq!(config["servers"]["ready"], 1);
    assert_eq!(why["events"].as_array().unwrap().len(), 2);

    // All events, in pages of three, are all events.
    let all = viewer("/v1/pools/office/events?limit=1000").send().await.expect(200);
    assert_eq!(all["next"], Value::Null);
    let all = all["events"].as_array().unwrap().clone();
    assert!(all.len() > 3, "{all:?}");
    let mut paged = vec![];
    let mut before = String::new();
    loop {
        let page = viewer(&format!("/v1/pools/office/events?limit=3{before}")).send().await.expect(200);
        paged.extend(page["events"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_i64() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(paged, all);
    let kinds: Vec<&str> = all.iter().rev().map(|event| event["value"]["event"].as_str().unwrap()).collect();
    assert_eq!(kinds[0], "config_set");
    assert!(kinds.contains(&"decided") && kinds.contains(&"server"), "{kinds:?}");
    assert!(all.windows(2).all(|pair| pair[0]["number"].as_i64() > pair[1]["number"].as_i64()));
}

#[tokio::test]
async fn monitoring_reads_health_and_metrics() {
    let stage = Stage::new().await;
    stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 1 }))).await;
    let health = stage.bare("GET", "/healthz").send().await;
    assert_eq!((health.status, health.body.as_str()), (200, "ok"));
    let metrics = stage.as_role(Role::Viewer, "GET", "/metrics").send().await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(metrics.body.contains("kasm_autoscale_free_sessions{pool=\"office\",config=\"a\"} 1"), "{}", metrics.body);
    assert!(metrics.body.ends_with("# EOF\n"));
    stage.host.stop().await;
    stage.bare("GET", "/healthz").send().await.refused(503, "not_alive");
    let busy = stage.admin("GET", "/v1/pools/office").send().await;
    assert_eq!(busy.header("retry-after"), "5");
    busy.refused(503, "stopped");
}
