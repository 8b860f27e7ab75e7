//! What users do: log in, see what is open to them, launch it, connect, come back, log out.

use std::collections::BTreeMap;
use std::time::Duration;

use kasm_daemon::api::Limits;
use kasm_daemon::auth::{Role, Tokens};
use kasm_daemon::users::{LoginRules, ThrottleRules};
use serde_json::{Value, json};

use crate::client::{Ask, Reply};
use crate::stage::{GROUP, PASSWORD, Stage, USER_PASSWORD, config};

/// A pool with single sign-on and room for one session, and the workspace `desk` of it.
async fn desk(settings: Value) -> Stage {
    let stage = Stage::new().await;
    let info = json!({ "guac": { "settings": { "remote-app": "||Calc", "dpi": 96 } } });
    let sso = json!({
        "minimum_available_sessions": 1, "reusable": true, "connection_username": "{sso_username}",
        "connection_password": "{sso_cred}", "connection_info": info,
    });
    stage.pool_with("office", config("a", sso)).await;
    let mut workspace = json!({ "name": "desk", "pool": "office", "friendly_name": "A desk" });
    workspace.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    stage.admin("POST", "/v1/workspaces").json(&workspace).send().await.expect(201);
    stage
}

fn ann(stage: &Stage, method: &str, path: &str) -> Ask {
    stage.as_role(Role::User, method, path)
}

fn names(list: &Value) -> Vec<&str> {
    list["workspaces"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_user_launches_a_workspace_and_comes_back_to_it() {
    let stage = desk(json!({ "sso_domain": "CORP\\" })).await;
    let list = ann(&stage, "GET", "/v1/workspaces").send().await.expect(200);
    assert_eq!(list["workspaces"], json!([{ "name": "desk", "friendly_name": "A desk", "description": "" }]));

    let launched = ann(&stage, "POST", "/v1/workspaces/desk/launch?wait=20s").send().await;
    let path = launched.header("location").to_owned();
    let launched = launched.expect(201);
    let id = launched["id"].as_str().unwrap();
    assert_eq!(path, format!("/v1/workspaces/desk/sessions/{id}"));
    let connection = &launched["connection"];
    assert_eq!((&launched["state"], &launched["user"]), (&json!("active"), &json!("ann@corp.example")));
    assert_eq!(
        (&connection["credentials"], &connection["username"], &connection["password"]),
        (&json!("sso"), &json!("CORP\\ann"), &json!(USER_PASSWORD))
    );
    // To launch it again, from another login too, is to come back to the same session.
    let again = stage.as_user("ANN@corp.example", "POST", "/v1/workspaces/desk/launch").await.send().await.expect(200);
    assert_eq!((&again["id"], &again["connection"]["password"]), (&launched["id"], &json!(USER_PASSWORD)));
    let list = ann(&stage, "GET", "/v1/workspaces").send().await.expect(200);
    assert_eq!(list["workspaces"][0]["session"]["id"], launched["id"]);
    assert!(list["workspaces"][0]["session"].get("connection").is_none(), "not in lists");
    let one = ann(&stage, "GET", "/v1/workspaces/desk").send().await.expect(200);
    assert_eq!(one, list["workspaces"][0]);

    // Others are not told that it is there, and a broker is not told the user's password.
    let bob = stage.as_user("bob", "GET", &path).await;
    for method in ["GET", "DELETE"] {
        Ask { method: method.into(), ..bob.clone() }.send().await.refused(404, "unknown_session");
    }
    let keepalive = format!("{path}/keepalive");
    Ask { method: "POST".into(), path: keepalive.clone(), ..bob.clone() }.send().await.refused(404, "unknown_session");
    for id in ["ses-0", "ses-2", "ses-99", "x"] {
        let path = format!("/v1/workspaces/desk/sessions/{id}");
        Ask { path, ..bob.clone() }.send().await.refused(404, "unknown_session");
    }
    let broker = format!("/v1/pools/office/sessions/{id}");
    let seen = stage.as_role(Role::Broker, "GET", &broker).send().await.expect(200);
    assert_eq!(
        (&seen["connection"]["username"], &seen["connection"]["password"]),
        (&json!("ann@corp.example"), &Value::Null)
    );
    ann(&stage, "GET", &broker).send().await.refused(403, "forbidden");

    // There is room for one: bob waits, and has it when ann has gone.
    let waits = stage.as_user("bob", "POST", "/v1/workspaces/desk/launch").await.send().await;
    let bobs = waits.header("location").to_owned();
    assert_eq!(waits.expect(202)["position"], 1);
    ann(&stage, "POST", &keepalive).send().await.expect(200);
    assert_eq!(ann(&stage, "DELETE", &path).send().await.expect(200)["state"], "ended");
    assert_eq!(ann(&stage, "DELETE", &path).send().await.expect(200)["state"], "ended", "to end it again is no error");
    ann(&stage, "POST", &keepalive).send().await.refused(409, "session_ended");
    let placed = Ask { path: format!("{bobs}?wait=20s"), ..bob }.send().await.expect(200);
    assert_eq!((&placed["state"], &placed["connection"]["username"]), (&json!("active"), &json!("CORP\\bob")));
}

#[tokio::test]
async fn the_same_key_is_the_same_wish_and_another_users_key_is_another() {
    let stage = desk(json!({})).await;
    let launch = |ask: Ask| ask.header("idempotency-key", "k1");
    let first = launch(ann(&stage, "POST", "/v1/workspaces/desk/launch?wait=20s")).send().await.expect(201);
    let path = format!("/v1/workspaces/desk/sessions/{}", first["id"].as_str().unwrap());
    ann(&stage, "DELETE", &path).send().await.expect(200);
    let again = launch(ann(&stage, "POST", "/v1/workspaces/desk/launch")).send().await.expect(200);
    assert_eq!((&again["id"], &again["state"]), (&first["id"], &json!("ended")));
    assert!(again.get("connection").is_none());
    let bob = stage.as_user("bob", "POST", "/v1/workspaces/desk/launch?wait=20s").await;
    let bob = launch(bob).send().await.expect(201);
    assert_ne!(bob["id"], first["id"]);
    launch(ann(&stage, "POST", "/v1/workspaces/desk/launch?zone=x"))
        .send()
        .await
        .refused(409, "idempotency_key_reused");
}

#[tokio::test]
async fn a_user_sees_what_is_open_to_him() {
    let stage = desk(json!({ "groups": [GROUP] })).await;
    for (name, settings) in [
        ("all", json!({})),
        ("off", json!({ "enabled": false })),
        ("others", json!({ "ldap": ["computers"] })),
        ("corp", json!({ "ldap": ["corp"], "groups": ["CN=None,DC=corp,DC=example", GROUP] })),
    ] {
        let mut body = json!({ "name": name, "pool": "office" });
        body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        stage.admin("POST", "/v1/workspaces").json(&body).send().await.expect(201);
    }
    let list = ann(&stage, "GET", "/v1/workspaces").send().await.expect(200);
    assert_eq!(names(&list), ["all", "corp", "desk"]);
    let bob = stage.as_user("bob", "GET", "/v1/workspaces").await;
    assert_eq!(names(&bob.clone().send().await.expect(200)), ["all"]);
    for name in ["desk", "off", "others", "corp", "filed", "none"] {
        let at = format!("/v1/workspaces/{name}");
        let error = Ask { path: at.clone(), ..bob.clone() }.send().await.refused(404, "unknown_workspace");
        assert!(
            error["message"].as_str().unwrap().ends_with("there are all"),
            "what is there is told of his own alone"
        );
        let launch = Ask { method: "POST".into(), path: format!("{at}/launch"), ..bob.clone() };
        launch.send().await.refused(404, "unknown_workspace");
    }
}

/// The lines of a `.rdp` file as clients read them.
fn properties(reply: &Reply) -> BTreeMap<String, String> {
    let lines = reply.body.strip_suffix("\r\n").unwrap().split("\r\n");
    let property = |line: &str| {
        let parts: Vec<&str> = line.splitn(3, ':').collect();
        (parts[0].to_owned(), parts[2].to_owned())
    };
    lines.map(property).collect()
}

#[tokio::test]
async fn a_session_is_told_in_the_form_that_a_client_reads() {
    let stage = desk(json!({ "sso_domain": "localhost" })).await;
    let launched = ann(&stage, "POST", "/v1/workspaces/desk/launch?wait=20s").send().await;
    let path = launched.header("location").to_owned();
    let launched = launched.expect(201);
    let port = launched["connection"]["port"].as_u64().unwrap();

    let by_query = ann(&stage, "GET", &format!("{path}?format=rdp")).send().await;
    let by_header = ann(&stage, "GET", &path).header("accept", "text/html, application/x-rdp;q=0.9").send().await;
    for file in [&by_query, &by_header] {
        assert_eq!((file.status, file.header("content-type")), (200, "application/x-rdp"));
        assert_eq!(file.header("content-disposition"), "attachment; filename=\"desk.rdp\"");
        let file_lines = properties(file);
        assert_eq!(file_lines["full address"], format!("127.0.0.1:{port}"));
        assert_eq!((&*file_lines["username"], &*file_lines["remoteapplicationprogram"]), ("ann", "||Calc"));
        assert!(!file.body.contains("canary"), "never a password");
    }
    let guacamole = ann(&stage, "GET", &format!("{path}?format=guacamole")).send().await.expect(200);
    assert_eq!(
        guacamole,
        json!({ "protocol": "rdp", "parameters": {
            "hostname": "127.0.0.1", "port": port.to_string(), "username": "ann", "password": USER_PASSWORD,
            "security": "any", "ignore-cert": "true", "remote-app": "||Calc", "dpi": "96",
        } })
    );
    ann(&stage, "GET", &format!("{path}?format=exe")).send().await.refused(422, "invalid");

    // The broker has the same forms, without what is the user's own; a viewer has none of them.
    let at = format!("/v1/pools/office/sessions/{}", launched["id"].as_str().unwrap());
    let broker = |format: &str| stage.as_role(Role::Broker, "GET", &format!("{at}?format={format}"));
    let parameters = &broker("guacamole").send().await.expect(200)["parameters"];
    assert!(parameters.get("password").is_none() && parameters["username"] == "ann@corp.example");
    assert_eq!(properties(&broker("rdp").send().await)["username"], "ann@corp.example");
    let viewer = stage.as_role(Role::Viewer, "GET", &format!("{at}?format=rdp")).send().await;
    viewer.refused(403, "forbidden");
    ann(&stage, "DELETE", &path).send().await.expect(200);
    ann(&stage, "GET", &format!("{path}?format=rdp")).send().await.refused(409, "not_active");
}

#[tokio::test]
async fn what_a_form_cannot_hold_is_an_error_that_names_it() {
    let stage = Stage::new().await;
    let info = json!({ "guac": { "settings": { "remote-app": "x\r\nfull address:s:evil", "list": [] } } });
    let shared = json!({
        "minimum_available_sessions": 1, "connection_info": info, "connection_username": "kasm",
        "connection_password": { "secret": "rdp-password" },
    });
    stage.pool_with("office", config("a", shared)).await;
    let workspace = json!({ "name": "desk", "pool": "office" });
    stage.admin("POST", "/v1/workspaces").json(&workspace).send().await.expect(201);
    let launched = ann(&stage, "POST", "/v1/workspaces/desk/launch?wait=20s").send().await;
    let path = launched.header("location").to_owned();
    let launched = launched.expect(201);
    assert_eq!(launched["connection"]["password"], PASSWORD, "an account for all, which the user has to log in with");
    for (format, field) in [("rdp", "remote-app"), ("guacamole", "list")] {
        let error = ann(&stage, "GET", &format!("{path}?format={format}")).send().await.refused(409, "does_not_fit");
        let text = error["problems"].to_string();
        assert!(text.contains(&format!("connection_info.guac.settings.{field}")) && !text.contains("evil"), "{text}");
    }
}

#[tokio::test]
async fn a_login_is_a_token_until_it_ends() {
    let stage = Stage::new().await;
    let login = stage.login("bob", USER_PASSWORD).send().await;
    assert_eq!(login.header("cache-control"), "no-store");
    let login = login.expect(200);
    assert_eq!((&login["user"], &login["ldap"]), (&json!("bob@corp.example"), &json!("corp")));
    let bob = |method: &str, path: &str| {
        stage.bare(method, path).header("authorization", &format!("Bearer {}", login["token"].as_str().unwrap()))
    };
    let shown = bob("GET", "/v1/login").send().await.expect(200);
    assert_eq!((&shown["user"], shown.get("token")), (&login["user"], None), "the token is told once");
    bob("POST", "/v1/logout").send().await.expect(204);
    bob("GET", "/v1/login").send().await.refused(401, "invalid_token");
    let names = stage.as_role(Role::Viewer, "GET", "/v1/ldap").send().await.expect(200);
    assert_eq!(
        names["ldap"],
        json!([
            { "name": "computers", "domain": "corp.example", "enabled": false },
            { "name": "corp", "domain": "corp.example", "enabled": true },
        ])
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_login_is_told_to_nobody() {
    let stage = Stage::new().await;
    let mut answers = vec![];
    for (name, password) in
        [("ann", "x"), ("nobody", USER_PASSWORD), ("ann", ""), ("", ""), ("*)(", "x"), ("a\u{0}", "x")]
    {
        let reply = stage.login(name, password).send().await;
        assert!(!reply.header("www-authenticate").is_empty());
        let mut error = reply.refused(401, "login_refused");
        error.as_object_mut().unwrap().remove("request_id");
        answers.push(error);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
    stage.login("down", "x").send().await.refused(503, "directory_unavailable");
    stage.login("panics", "x").send().await.refused(500, "internal");

    // Mistakes in the body are named, without what was given.
    let ask = |body: Value| stage.bare("POST", "/v1/login").json(&body).send();
    for body in [
        json!({ "user": "ann", "pasword": "s3cret-typo" }),
        json!({ "username": "ann", "password": ["s3cret-typo"], "x": "s3cret-typo" }),
        json!({ "username": "ann", "password": "s3cret-typo", "ldap": "s3cret-typo?" }),
        json!({ "username": "ann", "password": "s3cret-typo", "ldap": "computers" }),
        json!({ "username": "ann", "password": "s3cret-typo", "ldap": "none" }),
    ] {
        let error = ask(body).await.refused(422, "invalid");
        assert!(!error.to_string().contains("s3cret-typo"), "{error}");
    }
    stage.bare("POST", "/v1/login").text("{}").send().await.refused(415, "not_json");
    let twice = r#"{"username": "ann", "password": "a", "password": "b"}"#;
    let twice = stage.bare("POST", "/v1/login").text(twice).header("content-type", "application/json");
    twice.send().await.refused(400, "malformed_json");
}

#[tokio::test]
async fn too_many_failures_of_a_user_or_an_address_have_to_wait() {
    let throttle = ThrottleRules { per_user: 2, per_address: 4, window: Duration::from_secs(600) };
    let rules = LoginRules { failure_delay: Duration::ZERO, throttle, ..LoginRules::default() };
    let stage = Stage::ruled(Tokens::new(vec![]), BTreeMap::new(), Limits::default(), rules).await;
    let from = |address: &str, user: &str, password: &str| {
        stage.login(user, password).header("x-forwarded-for", &format!("10.9.9.9, {address}")).send()
    };
    from("10.0.0.1", "ann", "x").await.refused(401, "login_refused");
    from("10.0.0.2", "ANN@corp.example", "x").await.refused(401, "login_refused");
    let waits = from("10.0.0.3", "ann", USER_PASSWORD).await;
    let seconds: u64 = waits.header("retry-after").parse().unwrap();
    assert!((500..=601).contains(&seconds), "{seconds}");
    waits.refused(429, "too_many_failures");
    from("10.0.0.1", "bob", USER_PASSWORD).await.expect(200);

    for user in ["u1", "u2", "u3", "u4"] {
        from("10.0.0.7", user, "x").await.refused(401, "login_refused");
    }
    from("10.0.0.7", "bob", USER_PASSWORD).await.refused(429, "too_many_failures");
    from("10.0.0.8", "bob", USER_PASSWORD).await.expect(200);
}
