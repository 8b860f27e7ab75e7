//! Workspaces as operators keep them.

use kasm_daemon::auth::Role;
use kasm_daemon::workspaces::Workspaces;
use serde_json::{Value, json};

use crate::stage::{GROUP, Stage};

fn workspace(name: &str) -> Value {
    json!({
        "name": name, "pool": "office", "friendly_name": "Büro", "description": "Two\nlines", "enabled": true,
        "sso_domain": "CORP\\", "ldap": ["corp"], "groups": [GROUP],
    })
}

#[tokio::test]
async fn a_workspace_is_made_changed_and_deleted_and_outlives_the_daemon() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let made = stage.admin("POST", "/v1/workspaces").json(&workspace("desk")).send().await;
    assert_eq!(made.header("location"), "/v1/workspaces/desk");
    let made = made.expect(201);
    assert_eq!((&made["settings"], &made["declared"]), (&workspace("desk"), &json!(false)));
    stage.admin("POST", "/v1/workspaces").json(&workspace("desk")).send().await.refused(409, "workspace_exists");

    // What is read can be put back; the name may be left out, and cannot be changed.
    let put = |body: &Value| stage.admin("PUT", "/v1/workspaces/desk").json(body);
    assert_eq!(put(&made["settings"]).send().await.expect(200), made);
    put(&json!({ "pool": "office", "enabled": false })).send().await.expect(200);
    put(&workspace("other")).send().await.refused(422, "invalid");
    let shown = stage.as_role(Role::Viewer, "GET", "/v1/workspaces/desk").send().await.expect(200);
    assert_eq!((&shown["friendly_name"], &shown["settings"]["enabled"]), (&json!("desk"), &json!(false)));
    let list = stage.as_role(Role::Viewer, "GET", "/v1/workspaces").send().await.expect(200);
    let names: Vec<&Value> = list["workspaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["desk", "filed"]);

    // What another daemon on the same store would find. Declared ones stand in the file alone, and take the place of others.
    let store = stage.host.world().store.clone();
    let again = Workspaces::load(store.clone(), vec![]).await.unwrap();
    assert_eq!(again.all().iter().map(|one| one.to_json()).collect::<Vec<_>>(), [shown["settings"].clone()]);
    let declared = vec![again.get("desk").unwrap().as_ref().clone()];
    assert!(Workspaces::load(store.clone(), declared).await.unwrap().is_declared(&"desk".parse().unwrap()));
    assert!(Workspaces::load(store, vec![]).await.unwrap().all().is_empty(), "taken out of the file, it is gone");

    let held = stage.admin("DELETE", "/v1/pools/office").send().await.refused(409, "pool_has_workspaces");
    assert!(held["message"].as_str().unwrap().contains("\"desk\""));
    stage.admin("DELETE", "/v1/workspaces/desk").send().await.expect(204);
    stage.admin("DELETE", "/v1/workspaces/desk").send().await.refused(404, "unknown_workspace");
    stage.admin("DELETE", "/v1/pools/office").send().await.expect(204);
}

#[tokio::test]
async fn a_declared_workspace_is_changed_in_the_file() {
    let stage = Stage::new().await;
    let body = json!({ "pool": "filed" });
    stage.admin("PUT", "/v1/workspaces/filed").json(&body).send().await.refused(409, "declared");
    let error = stage.admin("DELETE", "/v1/workspaces/filed").send().await.refused(409, "declared");
    assert!(error["message"].as_str().unwrap().contains("config file"), "{error}");
    assert_eq!(stage.admin("GET", "/v1/workspaces/filed").send().await.expect(200)["declared"], true);
}

#[tokio::test]
async fn what_a_workspace_refers_to_must_be_there() {
    let stage = Stage::new().await;
    let body = json!({ "name": "desk", "pool": "ofice", "ldap": ["crop"], "sso_domain": "a b", "frendly_name": "x" });
    let ask = |body: &Value| stage.admin("POST", "/v1/workspaces").json(body);
    let error = ask(&body).send().await.refused(422, "invalid");
    let paths: Vec<&Value> = error["problems"].as_array().unwrap().iter().map(|problem| &problem["path"]).collect();
    assert_eq!(paths, ["sso_domain", "frendly_name"]);
    let body = json!({ "name": "desk", "pool": "ofice", "ldap": ["crop"] });
    let error = ask(&body).send().await.refused(422, "invalid");
    let text = error["problems"].to_string();
    assert!(text.contains("there are filed") && text.contains("there are computers, corp"), "{text}");
}
