//! Every text, list and object that a body may hold has its bound.

use kasm_daemon::api::openapi_json;
use serde_json::{Value, json};

use crate::stage::{Stage, config};

/// A body that would be taken, for each route that takes one.
fn good(method: &str, path: &str) -> Option<Value> {
    Some(match (method, path) {
        ("post", "/v1/pools") | ("put", "/v1/pools/{pool}") => json!({ "name": "office" }),
        ("post", "/v1/pools/{pool}/configs") | ("put", "/v1/pools/{pool}/configs/{config}") => config("a", json!({})),
        ("post", "/v1/pools/{pool}/sessions") => json!({ "user": "ann" }),
        ("post", "/v1/workspaces") | ("put", "/v1/workspaces/{workspace}") => {
            json!({ "name": "desk", "pool": "office" })
        }
        ("post", "/v1/login") => json!({ "username": "ann", "password": "x" }),
        ("post", "/v1/tokens") => json!({ "name": "ci", "role": "viewer" }),
        // What a machine says is cut, not refused: its script cannot be mended while it runs.
        ("post", "/api/set_server_status") => return None,
        _ => panic!("{method} {path} takes a body, and no good one is known"),
    })
}

/// More than any field may hold, in a body that is not refused as a whole. What kind of value a field takes is left aside:
/// whatever it takes, it does not take so much of it.
fn too_much(path: &str, field: &str) -> [Value; 3] {
    let count = match field {
        "startup_script" => 300_000,
        _ if path.contains("/configs") => 70_000,
        _ => 12_000,
    };
    let list: Vec<Value> = (0..count / 4).map(|_| json!("x")).collect();
    let object = (0..count / 16).map(|key| (format!("k{key}"), json!("x".repeat(10))));
    [json!("x".repeat(count)), list.into(), Value::Object(object.collect())]
}

#[tokio::test]
async fn s_16_every_text_list_and_object_in_a_body_has_its_bound() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", json!({}))).send().await.expect(201);
    stage.admin("POST", "/v1/workspaces").json(&json!({ "name": "desk", "pool": "office" })).send().await.expect(201);
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut asked = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(schema) = operation.pointer("/requestBody/content/application~1json/schema/$ref") else {
                continue;
            };
            let Some(good) = good(method, path) else { continue };
            let filled = path.replace("{pool}", "office").replace("{config}", "a").replace("{workspace}", "desk");
            let schema = document.pointer(schema.as_str().unwrap().strip_prefix('#').unwrap()).unwrap();
            for field in schema["properties"].as_object().unwrap().keys() {
                for value in too_much(path, field) {
                    let mut body = good.clone();
                    body[field] = value;
                    let reply = stage.admin(&method.to_uppercase(), &filled).json(&body).send().await;
                    let shown = format!("{method} {path} {field}: {} {}", reply.status, reply.body);
                    // Whether a user has such a name or such a password is told to nobody.
                    assert!([422, 401].contains(&reply.status), "{shown:.300}");
                    if reply.status == 422 {
                        let problems = reply.json()["error"]["problems"].as_array().unwrap().clone();
                        let named = |problem: &Value| problem["path"].as_str().is_some_and(|at| at.starts_with(field));
                        assert!(problems.iter().any(named), "{shown:.300}");
                        assert!(
                            reply.body.len() < 1_000_000,
                            "an answer of {} bytes to {shown:.100}",
                            reply.body.len()
                        );
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 200, "{asked}");
}

/// Of mistakes there may be as many as there is room for. What is said of them is bounded, and so is the work of saying it.
#[tokio::test]
async fn s_16_nothing_but_mistakes_is_not_answered_with_many_times_as_much() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let keys = |count: usize| -> Value { (0..count).map(|key| (format!("k{key}"), json!(1))).collect() };
    let configs = "/v1/pools/office/configs";
    let script = config("a", json!({ "startup_script": "{x}".repeat(80_000) }));
    for (path, body) in [
        (configs, keys(90_000)),
        (configs, config("a", json!({ "machine": keys(5000) }))),
        (configs, script),
        ("/v1/login", keys(1500)),
        ("/v1/workspaces", json!({ "name": "a", "pool": "office", "groups": vec![1; 100], "ldap": vec![1; 100] })),
    ] {
        let reply = stage.admin("POST", path).json(&body).send().await;
        let told = reply.body.len();
        let error = reply.refused(422, "invalid");
        let problems = error["problems"].as_array().unwrap().len();
        assert!((50..=100).contains(&problems) && told < 65_536, "{path}: {problems} mistakes, {told} bytes");
    }
    let query = format!("/v1/pools?{}", (0..2000).map(|number| format!("q{number}=&")).collect::<String>());
    let error = stage.admin("GET", &query).send().await.refused(422, "invalid");
    assert!(error["message"].as_str().unwrap().contains("2000 mistakes"), "{error:.200}");
    assert_eq!(error["problems"].as_array().unwrap().len(), 100);
}
