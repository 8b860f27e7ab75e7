//! What the audit log says of each call.

use std::collections::BTreeMap;

use kasm_daemon::api::access::{Access, ROUTES};
use kasm_daemon::api::openapi_json;
use kasm_daemon::auth::Role;
use kasm_daemon::trail::verify::Verifier;
use kasm_daemon::trail::{Chain, Entry, Kind};
use serde_json::{Value, json};

use crate::client::Reply;
use crate::secrets::shows;
use crate::stage::{KEY_BYTE, PASSWORD, Stage, USER_PASSWORD, config};

/// All entries, the first one first.
async fn entries(stage: &Stage) -> Vec<Entry> {
    // What nobody waits for is written with this.
    stage.host.world().store.audit_head().await.unwrap();
    let mut sealed = stage.host.world().store.audit_entries(None, 100_000).await.unwrap();
    sealed.reverse();
    sealed.iter().map(|sealed| Entry::read(&sealed.text).unwrap()).collect()
}

/// The entries of one request.
async fn of(stage: &Stage, reply: &Reply) -> Vec<Entry> {
    let id = reply.header("x-request-id");
    entries(stage).await.into_iter().filter(|entry| entry.request == id).collect()
}

async fn verify(stage: &Stage) {
    let key = kasm_autoscale_core::token::DeploymentKey::new([KEY_BYTE; 32]);
    let store = &stage.host.world().store;
    let chain = Chain::new(&key, store.deployment());
    let mut verifier = Verifier::new(Some(&chain), None, None);
    for sealed in store.audit_entries(None, 100_000).await.unwrap().iter().rev() {
        verifier.take(sealed.head.number, &sealed.head.mac, &sealed.text);
    }
    let verdict = verifier.finish();
    assert_eq!(verdict.findings, Vec::<String>::new());
    assert!(!verdict.notes.iter().any(|note| note.contains("no answer")), "{:?}", verdict.notes);
}

fn filled(path: &str, is_there: bool) -> String {
    let (pool, config, workspace) = if is_there { ("filed", "stone", "filed") } else { ("no-pool", "no", "none") };
    path.replace("{pool}", pool)
        .replace("{config}", config)
        .replace("{server}", "srv-1")
        .replace("{session}", "ses-1")
        .replace("{workspace}", workspace)
}

/// What such a call sends, as far as it has a body.
fn body(path: &str) -> Value {
    match path {
        "/v1/pools" => json!({ "name": "made" }),
        "/v1/pools/{pool}/configs" => config("made", json!({ "max_servers": 0 })),
        "/v1/workspaces" => json!({ "name": "made", "pool": "filed" }),
        _ if path.ends_with("/sessions") => json!({ "user": "bob" }),
        _ => json!({}),
    }
}

/// Every route of the OpenAPI document that may change something, for everybody who may call it and everybody who may not.
#[tokio::test]
async fn s_22_every_call_that_may_change_something_is_recorded_once_with_its_result() {
    let stage = Stage::new().await;
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let (mut asked, mut refused, mut routine) = (0, 0, 0);
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys().map(|method| method.to_uppercase()) {
            let route = ROUTES.iter().find(|route| route.method == method && route.path == path).unwrap();
            let Access::Roles(roles) = route.access else { continue };
            if method == "GET" {
                continue;
            }
            for role in Role::ALL {
                for is_there in [true, false] {
                    // Who logs out is gone: a user of its own, so that the next one is let in.
                    let ask = if role == Role::User {
                        stage.as_user("bob", &method, &filled(path, is_there)).await
                    } else {
                        stage.as_role(role, &method, &filled(path, is_there))
                    };
                    let reply = ask.json(&body(path)).send().await;
                    let found = of(&stage, &reply).await;
                    let what = format!("{role} {method} {path} {is_there}: {} {found:#?}", reply.status);
                    if path.ends_with("/keepalive") && roles.contains(&role) {
                        assert!(found.is_empty(), "{what}");
                        routine += 1;
                        continue;
                    }
                    let code =
                        (reply.status >= 400).then(|| reply.json()["error"]["code"].as_str().unwrap().to_owned());
                    let kinds: Vec<Kind> = found.iter().map(|entry| entry.kind).collect();
                    let caller = found[0].caller.as_ref().unwrap();
                    let name = if role == Role::User { "bob" } else { role.as_str() };
                    assert!(caller.name.starts_with(name) && caller.role == role.as_str(), "{what}");
                    assert_eq!(caller.token.as_ref().map(String::len), Some(16), "{what}");
                    assert_eq!((found[0].method.as_str(), &found[0].route), (method.as_str(), path), "{what}");
                    assert_eq!(
                        found[0].from.map(|address| address.to_string()).as_deref(),
                        Some("127.0.0.1"),
                        "{what}"
                    );
                    let end = found.last().unwrap();
                    assert_eq!((end.status, &end.code), (Some(reply.status), &code), "{what}");
                    if !roles.contains(&role) {
                        assert_eq!((kinds, reply.status), (vec![Kind::Refused], 403), "{what}");
                        refused += 1;
                        continue;
                    }
                    assert_eq!(kinds, [Kind::Asked, Kind::Answered], "{what}");
                    assert!(found[0].digest.is_some() && found[0].status.is_none(), "{what}");
                    let names: BTreeMap<&str, &str> =
                        found[0].object.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                    for (name, there, nowhere) in
                        [("pool", "filed", "no-pool"), ("config", "stone", "no"), ("workspace", "filed", "none")]
                    {
                        if path.contains(&format!("{{{name}}}")) {
                            let shown = names[name];
                            let fits = if is_there { shown == there } else { shown.starts_with("hmac:") };
                            assert!(fits && !shown.contains(nowhere), "{what}");
                        }
                    }
                    asked += 1;
                }
            }
        }
    }
    assert!(asked > 80 && refused > 80 && routine > 4, "{asked} asked, {refused} refused, {routine} routine");
    verify(&stage).await;
}

#[tokio::test]
async fn s_22_what_is_made_and_for_whom_stands_in_the_answer() {
    let stage = Stage::new().await;
    stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 1 }))).await;
    let made = entries(&stage).await.into_iter().filter_map(|entry| entry.object.get("made").cloned());
    assert_eq!(made.collect::<Vec<_>>(), ["/v1/pools/office", "/v1/pools/office/configs/a"]);
    let ask =
        || stage.as_role(Role::Broker, "POST", "/v1/pools/office/sessions?wait=20s").json(&json!({ "user": "ann" }));
    let first = ask().send().await;
    let found = of(&stage, &first).await;
    assert_eq!((found[1].status, found[1].query.as_deref()), (Some(201), Some("wait=20s")), "{found:#?}");
    assert_eq!((found[1].object["user"].as_str(), found[1].object["session"].as_str()), ("ann", "ses-1"));
    assert_eq!(found[0].object["pool"], "office");
    // The same again is the same session, and asked with the same body.
    let again = of(&stage, &ask().send().await).await;
    assert_eq!((again[1].status, &again[0].digest), (Some(200), &found[0].digest));
    let other =
        stage.as_role(Role::Broker, "POST", "/v1/pools/office/sessions?wait=20s").json(&json!({ "user": "bob" }));
    assert_ne!(of(&stage, &other.send().await).await[0].digest, found[0].digest);
    // What a delete was forced with is not lost.
    let force = stage.admin("DELETE", "/v1/pools/office/servers/srv-1?force=true").send().await;
    let found = of(&stage, &force).await;
    assert_eq!(
        (found[0].object["server"].as_str(), found[1].query.as_deref()),
        ("srv-1", Some("force=true")),
        "{found:#?}"
    );
    verify(&stage).await;
}

#[tokio::test]
async fn s_22_a_secret_that_is_shown_is_recorded_and_nothing_else_that_is_read() {
    let stage = Stage::new().await;
    let settings = json!({ "minimum_available_sessions": 1, "connection_username": "kasm", "connection_password": { "secret": "rdp-password" } });
    stage.pool_with("office", config("a", settings)).await;
    stage.as_role(Role::Broker, "POST", "/v1/pools/office/sessions").json(&json!({ "user": "ann" })).send().await;
    let asked = entries(&stage).await.last().cloned().unwrap();
    assert!(asked.kind == Kind::Answered && asked.secret, "a new session is answered with its password: {asked:#?}");
    let path = "/v1/pools/office/sessions/ses-1";
    for role in [Role::Broker, Role::Admin] {
        for path in [path.to_owned(), format!("{path}?format=guacamole")] {
            let reply = stage.as_role(role, "GET", &path).send().await;
            assert!(shows(&reply.body, PASSWORD), "{reply:?}");
            let found = of(&stage, &reply).await;
            assert_eq!(found.len(), 1, "{found:#?}");
            assert!(
                found[0].kind == Kind::Told && found[0].secret && found[0].object["session"] == "ses-1",
                "{found:#?}"
            );
        }
    }
    // Without a password, and everything else that is read.
    let mut quiet = vec![stage.as_role(Role::Viewer, "GET", path).send().await];
    quiet.push(stage.as_role(Role::Broker, "GET", &format!("{path}?format=rdp")).send().await);
    for route in ROUTES.iter().filter(|route| route.method == "GET" && !route.path.contains("{session}")) {
        let role = if let Access::Roles(roles) = route.access { roles[roles.len() - 1] } else { Role::Admin };
        quiet.push(stage.as_role(role, "GET", &filled(route.path, true)).send().await);
    }
    for reply in &quiet {
        assert_eq!((reply.status == 403, of(&stage, reply).await), (false, vec![]), "{reply:?}");
    }
    assert!(quiet.len() > 15);
    // One who may see sessions but not how to connect to them.
    let refused = stage.as_role(Role::Viewer, "GET", &format!("{path}?format=rdp")).send().await;
    assert_eq!((refused.status, of(&stage, &refused).await[0].kind), (403, Kind::Refused));
    verify(&stage).await;
}

#[tokio::test]
async fn s_22_logins_are_recorded_whether_they_succeed_or_not() {
    let stage = Stage::new().await;
    let good = of(&stage, &stage.login("ann", USER_PASSWORD).send().await).await;
    assert_eq!((good.len(), good[0].kind, good[0].status), (1, Kind::Told, Some(200)), "{good:#?}");
    assert!(
        good[0].secret && good[0].object["user"] == "ann@corp.example" || good[0].object["user"] == "ann",
        "{good:#?}"
    );
    let bad = of(&stage, &stage.login("ann", "wrong").send().await).await;
    assert_eq!((bad.len(), bad[0].kind, bad[0].code.as_deref()), (1, Kind::Refused, Some("login_refused")), "{bad:#?}");
    assert_eq!(bad[0].object["user_digest"], good[0].object["user_digest"], "tries with one name are known as such");
    let other = of(&stage, &stage.login("bob", "wrong").send().await).await;
    assert_ne!(other[0].object["user_digest"], good[0].object["user_digest"]);
    let broken = stage.bare("POST", "/v1/login").text("{").header("content-type", "application/json").send().await;
    assert_eq!(of(&stage, &broken).await[0].kind, Kind::Refused);
}

#[tokio::test]
async fn s_22_forged_check_ins_are_recorded_and_ordinary_ones_are_not() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let script =
        json!({ "minimum_available_sessions": 1, "require_checkin": true, "startup_script": "'{checkin_jwt}'" });
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", script)).send().await.expect(201);
    let token = stage.next_checkin_token().await;
    let path = format!("/api/set_server_status?token={token}");
    let good = stage.bare("POST", &path).json(&json!({ "status": "running" })).send().await;
    assert_eq!((good.status, of(&stage, &good).await), (200, vec![]));
    let forged = stage.bare("POST", &format!("{path}x")).json(&json!({ "status": "running" })).send().await;
    let found = of(&stage, &forged).await;
    assert_eq!((found.len(), found[0].kind, found[0].status), (1, Kind::Refused, Some(401)), "{found:#?}");
    assert!(found[0].object.is_empty(), "nothing of a forged token is believed: {found:#?}");
    let broken = stage.bare("POST", &path).text("{").send().await;
    let found = of(&stage, &broken).await;
    assert_eq!((found.len(), found[0].object["server"].as_str()), (1, "srv-1"), "{found:#?}");
}

#[tokio::test]
async fn s_22_a_flood_of_refused_calls_is_bounded_and_counted() {
    let stage = Stage::new().await;
    for number in 0..300 {
        let token = format!("Bearer kasm_x_{number}");
        stage.bare("GET", "/v1/pools").header("authorization", &token).send().await.refused(401, "invalid_token");
    }
    // Machines and callers who are known are not driven out of the log by strangers.
    stage.bare("POST", "/api/set_server_status?token=x").send().await.refused(401, "invalid_checkin_token");
    stage.as_role(Role::Viewer, "POST", "/v1/pools").send().await.refused(403, "forbidden");
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let all = entries(&stage).await;
    let strangers = all.iter().filter(|entry| entry.code.as_deref() == Some("invalid_token")).count();
    assert_eq!(all.iter().filter(|entry| entry.code.as_deref() == Some("invalid_checkin_token")).count(), 1);
    // One more now and then while this runs.
    assert!((200..=220).contains(&strangers), "{strangers}");
    let left_out: u64 = all.iter().map(|entry| entry.left_out).sum();
    assert_eq!(left_out, 300 - u64::try_from(strangers).unwrap());
    assert_eq!(all.iter().filter(|entry| entry.status == Some(403)).count(), 1);
    let digests: std::collections::BTreeSet<_> = all.iter().filter_map(|entry| entry.unknown_token.clone()).collect();
    assert_eq!(digests.len(), strangers, "each unknown token can be told from the others");
}

#[tokio::test]
async fn i_27_no_secret_stands_in_the_audit_log() {
    let stage = Stage::new().await;
    let settings = json!({
        "minimum_available_sessions": 1, "require_checkin": true, "connection_password": { "secret": "rdp-password" },
        "startup_script": "'{checkin_jwt}' '{connection_password}'",
    });
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", settings)).send().await.expect(201);
    let checkin = stage.next_checkin_token().await;
    let status = format!("/api/set_server_status?token={checkin}");
    stage.bare("POST", &status).json(&json!({ "status": "running" })).send().await.expect(200);
    stage.bare("POST", &format!("{status}&x=1")).text("{").send().await;
    stage.until("/v1/pools/office/servers?phase=ready", |list| list["servers"].get(0).cloned()).await;
    stage
        .as_role(Role::Broker, "POST", "/v1/pools/office/sessions")
        .json(&json!({ "user": "ann" }))
        .send()
        .await
        .expect(201);
    const CANARIES: [&str; 4] = ["canary-BODY-11", "canary-PATH-22", "canary-QUERY-33", "canary-TOKEN-44"];
    let [in_body, in_path, in_query, as_token] = CANARIES;
    for route in ROUTES {
        let path = route.path.replace("{pool}", "office").replace("{config}", "a").replace("{session}", "ses-1");
        let path = path.replace("{server}", "srv-1").replace("{workspace}", "filed");
        let strange = ["{pool}", "{config}", "{session}", "{server}", "{workspace}"]
            .iter()
            .fold(route.path.to_owned(), |path, name| path.replace(name, in_path));
        // What ends a session or a server, and the user's token, comes last by itself: deletes are not among these.
        for role in Role::ALL {
            if route.method == "DELETE" || route.path == "/v1/logout" {
                continue;
            }
            let body = json!({ "name": in_body, "user": USER_PASSWORD, "username": in_body, "password": in_body, in_body: in_body });
            stage.as_role(role, route.method, &path).json(&body).send().await;
            stage.as_role(role, route.method, &format!("{path}?token={in_query}")).json(&body).send().await;
            stage.as_role(role, route.method, &strange).json(&body).send().await;
        }
        let strangers = format!("Bearer {as_token}");
        stage.bare(route.method, &path).header("authorization", &strangers).json(&json!({ "a": in_body })).send().await;
    }
    stage.login(in_body, in_body).send().await;
    stage.login("ann", USER_PASSWORD).send().await;
    let mut secrets: Vec<&str> = vec![PASSWORD, USER_PASSWORD, &checkin];
    secrets.extend(CANARIES);
    secrets.extend(stage.tokens.values().map(String::as_str));
    let all = entries(&stage).await;
    assert!(all.len() > 300, "{}", all.len());
    assert!(all.iter().any(|entry| entry.kind == Kind::Told) && all.iter().any(|entry| entry.unknown_token.is_some()));
    for entry in &all {
        let text = entry.text();
        for secret in &secrets {
            assert!(!shows(&text, secret), "{secret}: {text}");
        }
    }
    verify(&stage).await;
}

#[tokio::test]
async fn s_26_names_cannot_forge_an_entry() {
    let stage = Stage::new().await;
    let path = "/v1/pools/x%0d%0a%7b%22kind%22:%22told%22%7d";
    let found = of(&stage, &stage.admin("DELETE", path).send().await).await;
    assert!(found[0].object["pool"].starts_with("hmac:"), "{found:#?}");
    let user = "ann\r\n{\"kind\":\"told\"}";
    let body = json!({ "user": user });
    stage.as_role(Role::Broker, "POST", "/v1/pools/filed/sessions").json(&body).send().await;
    for sealed in stage.host.world().store.audit_entries(None, 1000).await.unwrap() {
        assert!(sealed.text.bytes().all(|byte| byte >= b' '), "{}", sealed.text);
    }
}

#[tokio::test]
async fn s_22_calls_at_once_are_recorded_each_with_its_own_answer() {
    let stage = Stage::new().await;
    stage
        .pool_with(
            "office",
            config("a", json!({ "minimum_available_sessions": 1, "max_servers": 3, "max_sessions_per_server": 20 })),
        )
        .await;
    let asks = (0..60).map(|number| {
        let ask = stage
            .as_role(Role::Broker, "POST", "/v1/pools/office/sessions")
            .json(&json!({ "user": format!("u{number}") }));
        tokio::spawn(ask.send())
    });
    let mut ids = BTreeMap::new();
    for ask in asks.collect::<Vec<_>>() {
        let reply = ask.await.unwrap();
        assert!([201, 202].contains(&reply.status), "{reply:?}");
        ids.insert(reply.header("x-request-id").to_owned(), reply.status);
    }
    let all = entries(&stage).await;
    for (id, status) in ids {
        let mine: Vec<_> = all.iter().filter(|entry| entry.request == id).collect();
        assert_eq!((mine.len(), mine[0].kind, mine[1].kind), (2, Kind::Asked, Kind::Answered), "{mine:#?}");
        assert_eq!(mine[1].status, Some(status));
    }
    verify(&stage).await;
}

#[tokio::test]
async fn s_22_the_log_goes_on_over_a_restart_of_the_daemon() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let stage = stage.restarted(|_| ()).await;
    // Whoever is answered is so after the daemon has said that it is there.
    stage.bare("GET", "/healthz").send().await;
    let kinds: Vec<Kind> = entries(&stage).await.iter().map(|entry| entry.kind).collect();
    use Kind::{Answered, Asked, Started, Stopped};
    assert_eq!(kinds, [Started, Asked, Answered, Stopped, Started]);
    verify(&stage).await;
}

#[tokio::test]
async fn the_audit_log_is_read_by_page_caller_pool_and_time() {
    let stage = Stage::new().await;
    for name in ["east", "west"] {
        stage.admin("POST", "/v1/pools").json(&json!({ "name": name })).send().await.expect(201);
        stage.as_role(Role::Operator, "PUT", &format!("/v1/pools/{name}")).json(&json!({})).send().await.expect(200);
    }
    let list = async |query: &str| {
        let list = stage.admin("GET", &format!("/v1/audit{query}")).send().await.expect(200);
        (list["entries"].as_array().unwrap().clone(), list["next"].clone())
    };
    let (all, next) = list("").await;
    assert_eq!((all.len(), &next), (9, &Value::Null), "{all:#?}");
    assert_eq!(all[8]["kind"], "started");
    assert!(all[0]["number"] == 9 && all[0]["mac"].as_str().unwrap().len() == 16, "{:#}", all[0]);
    let (mut paged, mut query) = (vec![], "?limit=4".to_owned());
    for _ in 0..3 {
        let (page, next) = list(&query).await;
        paged.extend(page);
        query = format!("?limit=4&before={next}");
    }
    assert_eq!(paged, all, "pages are the whole");
    let (operators, _) = list("?caller=operator").await;
    assert_eq!(operators.len(), 2);
    assert!(operators.iter().all(|entry| entry["caller"]["name"] == "operator" && entry["method"] == "PUT"));
    let (east, _) = list("?pool=east").await;
    assert_eq!(east.len(), 2, "made, and changed: {east:#?}");
    assert_eq!(list("?pool=eas").await.0.len(), 0);
    let third = all[6]["at"].as_str().unwrap();
    let (since, _) = list(&format!("?since={third}")).await;
    assert!(since.len() >= 7 && since.iter().all(|entry| entry["at"].as_str().unwrap() >= third), "{since:#?}");
    assert_eq!(list("?since=2999-01-01T00:00:00Z").await.0.len(), 0);
    let mistakes = stage.admin("GET", "/v1/audit?since=yesterday").send().await.refused(422, "invalid");
    assert_eq!(mistakes["problems"][0]["path"], "?since");
}

#[tokio::test]
async fn s_22_a_call_that_panics_is_answered_in_the_log_too() {
    let stage = Stage::new().await;
    let panics = config("b", json!({ "connection_password": { "secret": "panics" } }));
    let reply = stage.admin("POST", "/v1/pools/filed/configs").json(&panics).send().await;
    assert_eq!(reply.status, 500);
    let found = of(&stage, &reply).await;
    let kinds: Vec<_> = found.iter().map(|entry| (entry.kind, entry.status, entry.code.as_deref())).collect();
    assert_eq!(kinds, [(Kind::Asked, None, None), (Kind::Answered, Some(500), Some("internal"))], "{found:#?}");
}

#[tokio::test]
async fn s_22_tokens_that_are_made_and_revoked_are_recorded_by_their_ids() {
    let stage = Stage::new().await;
    let reply = stage.admin("POST", "/v1/tokens").json(&json!({ "name": "b", "role": "broker" })).send().await;
    let found = of(&stage, &reply).await;
    let made = reply.expect(201);
    let id = made["id"].as_str().unwrap();
    assert!(found[1].secret && found[1].object["token"] == id, "{found:#?}");
    let reply = stage.admin("DELETE", &format!("/v1/tokens/{id}")).send().await;
    let found = of(&stage, &reply).await;
    assert_eq!((found[0].object["token"].as_str(), found[1].status), (id, Some(204)), "{found:#?}");
    let token = made["token"].as_str().unwrap();
    assert!(entries(&stage).await.iter().all(|entry| !shows(&entry.text(), token)));
}
