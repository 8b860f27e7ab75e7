//! No secret leaves but the one that is asked for, by those who may ask.

use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use kasm_daemon::api::access::ROUTES;
use kasm_daemon::api::{Limits, Setup, wire};
use kasm_daemon::auth::Role;
use serde_json::{Value, json};
use tracing_subscriber::fmt::MakeWriter;

use crate::stage::{KEY_BYTE, PASSWORD, Stage, USER_PASSWORD, config};

/// Everything that is logged in this process, at every level.
struct Log(Mutex<Vec<u8>>);

struct Line<'a>(MutexGuard<'a, Vec<u8>>);

impl io::Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for &'static Log {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self.0.lock().unwrap())
    }
}

static LOG: OnceLock<Log> = OnceLock::new();

fn log() -> &'static Log {
    LOG.get_or_init(|| Log(Mutex::default()));
    let log = LOG.get().unwrap();
    // The first one here sets it up; afterwards it is there.
    let _ =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log).try_init();
    log
}

fn logged() -> String {
    String::from_utf8_lossy(&log().0.lock().unwrap()).into_owned()
}

/// Whether a secret stands in a text: plainly, escaped for JSON or `Debug`, or in base64 or hexadecimal.
pub(crate) fn shows(text: &str, secret: &str) -> bool {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let escaped = serde_json::to_string(secret).unwrap();
    let debug = format!("{secret:?}");
    let forms = [
        secret.to_owned(),
        escaped.trim_matches('"').to_owned(),
        debug.trim_matches('"').to_owned(),
        STANDARD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        hex,
    ];
    forms.iter().any(|form| text.contains(form.as_str()))
}

#[test]
fn the_search_finds_what_it_looks_for() {
    for text in
        [PASSWORD.to_owned(), json!({ "a": PASSWORD }).to_string(), format!("{PASSWORD:?}"), STANDARD.encode(PASSWORD)]
    {
        assert!(shows(&text, PASSWORD), "{text}");
    }
    assert!(!shows("canary", PASSWORD));
}

/// The answer without the one password that may stand in it.
fn without_password(reply: &str, role: Role) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(reply) else { return reply.into() };
    if role.sees_connections()
        && let Some(password) = value.pointer_mut("/connection/password")
    {
        *password = Value::Null;
    }
    value.to_string()
}

#[tokio::test]
async fn no_secret_leaves_but_the_password_that_is_asked_for() {
    log();
    let stage = Stage::new().await;
    let settings = json!({
        "minimum_available_sessions": 1, "require_checkin": true, "connection_username": "kasm", "connection_password": { "secret": "rdp-password" },
        "startup_script": "Send-CheckIn -Token '{checkin_jwt}' -Password '{connection_password}'",
    });
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", settings)).send().await.expect(201);
    let checkin = stage.next_checkin_token().await;
    let status = format!("/api/set_server_status?token={checkin}");
    stage.bare("POST", &status).text("{").send().await.refused(400, "malformed_json");
    stage.bare("POST", &status).json(&json!({ "status": "running" })).send().await.expect(200);
    stage.until("/v1/pools/office/servers?phase=ready", |list| list["servers"].get(0).cloned()).await;
    let ann = stage
        .as_role(Role::Broker, "POST", "/v1/pools/office/sessions")
        .json(&json!({ "user": "ann" }))
        .send()
        .await
        .expect(201);
    assert_eq!(ann["connection"]["password"], PASSWORD, "the one answer that may tell it");

    let workspace = json!({ "name": "office", "pool": "office" });
    stage.admin("POST", "/v1/workspaces").json(&workspace).send().await.expect(201);
    let mut secrets = vec![
        PASSWORD.to_owned(),
        USER_PASSWORD.to_owned(),
        checkin.clone(),
        char::from(KEY_BYTE).to_string().repeat(32),
    ];
    secrets.extend(stage.tokens.values().cloned());
    let mut texts = vec![];
    // Reads first, so that everything is still there to be read.
    let mut routes = ROUTES.to_vec();
    routes.sort_by_key(|route| (route.method != "GET", route.method == "DELETE", route.path == "/v1/logout"));
    for route in routes {
        let path = route
            .path
            .replace("{pool}", "office")
            .replace("{config}", "a")
            .replace("{server}", "srv-1")
            .replace("{session}", "ses-1")
            .replace("{workspace}", "office");
        for role in Role::ALL {
            let ask = stage.as_role(role, route.method, &path);
            let ask = if ["POST", "PUT"].contains(&route.method) {
                ask.json(&json!({ "name": PASSWORD, "user": "ann" }))
            } else {
                ask
            };
            let reply = ask.send().await;
            let mut text = without_password(&reply.body, role);
            if reply.status == 422 {
                // A mistake is shown to whoever made it: what the caller sent as a name is not the secret here.
                text = text.replace(
                    serde_json::to_string(&serde_json::to_string(PASSWORD).unwrap()).unwrap().trim_matches('"'),
                    "",
                );
            }
            texts.push((
                format!("{role} {} {path}: {}", route.method, reply.status),
                format!("{:?} {text}", reply.headers),
            ));
        }
        // A token that stands in the wrong place is not passed on either.
        let wrong = stage.admin(route.method, &format!("{path}?token={}", stage.tokens[&Role::Admin])).send().await;
        texts.push((format!("{} {path}?token", route.method), without_password(&wrong.body, Role::Admin)));
    }
    texts.push(("Debug".into(), debugged(&stage)));
    stage.stop.cancel();
    stage.served.await.unwrap().unwrap();
    stage.host.stop().await;
    let log = logged();
    for word in ["request", "/v1/pools/{pool}/sessions", "token=\"broker\"", "/api/set_server_status", "req-"] {
        assert!(log.contains(word), "the log was not caught: no {word}");
    }
    texts.push(("the log".into(), log));
    for (place, text) in &texts {
        for secret in &secrets {
            assert!(!shows(text, secret), "{place} shows {secret}:\n{text}");
        }
    }
}

fn debugged(stage: &Stage) -> String {
    let new = kasm_daemon::auth::generate_token("x").unwrap();
    let entry = kasm_daemon::auth::TokenEntry::from_token("x", Role::Admin, &stage.tokens[&Role::Admin].clone().into())
        .unwrap();
    let tokens = kasm_daemon::auth::Tokens::new(vec![entry.clone()]);
    let setup = Setup {
        host: stage.host.clone(),
        tokens: tokens.clone(),
        users: stage.users.clone(),
        workspaces: stage.workspaces.clone(),
        limits: Limits::default(),
    };
    let status =
        wire::ServerStatusBody { status: "running".into(), status_message: String::new(), status_progress: json!(1) };
    format!(
        "{new:?} {entry:?} {tokens:?} {setup:?} {status:?} {:?} {:?} {:?}",
        stage.users,
        stage.host.world().key,
        stage.host.world().metrics
    )
}

#[tokio::test]
async fn log_lines_cannot_be_forged() {
    log();
    let stage = Stage::new().await;
    let marker = "forged-line-91c2";
    stage.admin("GET", &format!("/v1/pools/x%0a%1b%5b31m{marker}")).send().await.refused(404, "unknown_pool");
    stage.admin("GET", &format!("/{marker}%0a%0d")).send().await.refused(404, "no_such_route");
    stage.admin("GET", &format!("/v1/pools?q={marker}")).send().await;
    let log = logged();
    assert!(!log.contains(marker), "a path or query that names nothing is not logged");
    assert!(log.contains("route=(none)"));
}
