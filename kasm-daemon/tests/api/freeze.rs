//! An invariant that does not hold: its config is frozen, and nothing else is.

use kasm_autoscale_core::ports::{MachineRef, MachineState};
use kasm_daemon::auth::Role;
use serde_json::{Value, json};

use crate::stage::{Stage, config};

/// A config as `/why` shows it.
fn why_of(why: &Value, name: &str) -> Value {
    let configs = why["configs"].as_array().unwrap();
    configs.iter().find(|config| config["config"] == name).cloned().unwrap_or_default()
}

async fn why(stage: &Stage, name: &str) -> Value {
    why_of(&stage.as_role(Role::Viewer, "GET", "/v1/pools/office/why").send().await.expect(200), name)
}

/// A user asks for a session in a zone, and gets one at once.
async fn placed(stage: &Stage, user: &str, zone: &str) -> Value {
    let ask = stage.as_role(Role::Broker, "POST", "/v1/pools/office/sessions?wait=20s");
    let session = ask.json(&json!({ "user": user, "zone": zone })).send().await.expect(201);
    assert_eq!(session["state"], "active", "{session}");
    session
}

fn is_there(stage: &Stage, machine: &MachineRef) -> bool {
    stage.provider.with_cloud(|cloud, now| {
        cloud.machine(machine).is_some_and(|machine| machine.state(now) == MachineState::Running)
    })
}

/// Writes into the store what only a bug could: a server is being deleted while somebody has a session on it.
fn doom(connection: &rusqlite::Connection, server: &str) {
    let key = format!("server/{}", server.rsplit('-').next().unwrap());
    let read = "SELECT value FROM rows WHERE key = ?1 AND value LIKE '%Ready%'";
    let text: String = connection.query_row(read, [&key], |row| row.get(0)).unwrap();
    let mut row: Value = serde_json::from_str(&text).unwrap();
    row["phase"] = json!({ "Deleting": { "since": 0, "why": "operator", "call": "Send", "tries": 0, "next_at": 0 } });
    let changed =
        connection.execute("UPDATE rows SET value = ?1 WHERE key = ?2 AND value = ?3", [row.to_string(), key, text]);
    assert_eq!(changed.unwrap(), 1);
}

#[tokio::test]
async fn i_14_a_delete_under_a_session_freezes_its_config_and_no_other() {
    let stage = Stage::new().await;
    let like = |name: &str| {
        let more = json!({ "zone": name, "minimum_available_sessions": 1, "max_servers": 4, "reusable": true });
        config(name, more)
    };
    stage.pool_with("office", like("a")).await;
    stage.admin("POST", "/v1/pools/office/configs").json(&like("b")).send().await.expect(201);
    let both = |why: &Value| ["a", "b"].iter().all(|name| why_of(why, name)["servers"]["ready"] == 1).then_some(());
    stage.until("/v1/pools/office/why", both).await;
    let ann = placed(&stage, "ann", "a").await;
    let session = format!("/v1/pools/office/sessions/{}", ann["id"].as_str().unwrap());
    let server = ann["server"].as_str().unwrap().to_owned();
    let more = |why: &Value| (why_of(why, "a")["servers"]["ready"] == 2).then_some(());
    stage.until("/v1/pools/office/why", more).await;
    let row = stage.admin("GET", &format!("/v1/pools/office/servers/{server}")).send().await.expect(200);
    let machine = MachineRef(row["machine"].as_str().unwrap().into());
    assert!(is_there(&stage, &machine));

    let stage = stage.restarted(|connection| doom(connection, &server)).await;
    let frozen = |why: &Value| Some(why_of(why, "a")["freeze"].clone()).filter(|freeze| *freeze != Value::Null);
    let freeze = stage.until("/v1/pools/office/why", frozen).await;
    assert!(freeze["invariant"].as_str().unwrap().contains("I-14"), "{freeze}");
    assert!(freeze["found"].as_str().unwrap().contains(&server), "{freeze}");
    assert!(freeze["words"].as_str().unwrap().contains("until an operator lifts it"), "{freeze}");
    assert_eq!(why(&stage, "b").await["freeze"], Value::Null);
    let metrics = stage.admin("GET", "/metrics").send().await.body;
    for line in
        ["frozen{pool=\"office\",config=\"a\"} 1", "frozen{pool=\"office\",config=\"b\"} 0", "violations_total 1"]
    {
        assert!(metrics.contains(&format!("kasm_autoscale_{line}")), "{line}: {metrics}");
    }
    let events = stage.admin("GET", "/v1/pools/office/events?limit=1000").send().await.expect(200);
    let alarm = events["events"].as_array().unwrap().iter().find(|event| event["value"]["event"] == "frozen").unwrap();
    assert!(alarm["words"].as_str().unwrap().starts_with("ALARM: a: frozen since 20"), "{alarm}");

    // Sessions go on: those that there are, and new ones on what there is.
    stage.as_role(Role::Broker, "POST", &format!("{session}/keepalive")).send().await.expect(200);
    let bob = placed(&stage, "bob", "a").await;
    assert_ne!(bob["server"], json!(server));
    // The other config serves and makes as ever. It has the first one's free session to make as well.
    placed(&stage, "cid", "b").await;
    stage
        .until("/v1/pools/office/why", |why| (why_of(why, "b")["servers"]["ready"].as_u64() >= Some(2)).then_some(()))
        .await;
    let a = why(&stage, "a").await;
    assert_eq!(
        (&a["decision"]["value"]["because"]["waiting"], &a["servers"]["creating"]),
        (&json!("frozen"), &json!(0)),
        "{a}"
    );
    assert!(is_there(&stage, &machine), "the machine under the session is not touched");

    // A restart forgets nothing.
    let stage = stage.restarted(|_| ()).await;
    assert_ne!(why(&stage, "a").await["freeze"], Value::Null);
    let lift = "/v1/pools/office/configs/a/lift-freeze";
    stage.as_role(Role::Operator, "POST", lift).send().await.refused(403, "forbidden");
    let error = stage.admin("POST", lift).send().await.refused(409, "still_broken");
    assert!(error["message"].as_str().unwrap().contains("I-14"), "{error}");
    assert_ne!(why(&stage, "a").await["freeze"], Value::Null);
    assert!(is_there(&stage, &machine));
    stage.admin("POST", "/v1/pools/office/configs/b/lift-freeze").send().await.refused(409, "not_frozen");
    stage.admin("POST", "/v1/pools/office/configs/c/lift-freeze").send().await.refused(404, "unknown_config");

    // The session ends: now all adds up. Still nothing is deleted before somebody lifts it.
    stage.as_role(Role::Broker, "DELETE", &session).send().await.expect(200);
    assert_ne!(why(&stage, "a").await["freeze"], Value::Null);
    stage.admin("POST", lift).send().await.expect(204);
    stage.admin("POST", lift).send().await.refused(409, "not_frozen");
    let whole = |why: &Value| {
        let a = why_of(why, "a");
        (a["freeze"] == Value::Null && a["supply"]["free"] == 1).then_some(())
    };
    stage.until("/v1/pools/office/why", whole).await;
}
