//! How much one caller may ask: who asks too much waits, and nobody else does.

use std::time::Duration;

use kasm_daemon::api::{CallerLimits, Limits, Rate};
use kasm_daemon::auth::Role;
use serde_json::{Value, json};

use crate::client::{Ask, Reply};
use crate::stage::{Stage, USER_PASSWORD, config};

/// So few that a test meets them, and no more for as long as it lasts.
const FEW: Rate = Rate { every: Duration::from_secs(600), burst: 5 };
/// So few as well, and soon there is room again.
const QUICK: Rate = Rate::per_second(1, 5);

fn limited(callers: CallerLimits) -> Limits {
    Limits { callers, ..Limits::default() }
}

/// Asks until it is too much.
async fn flood(ask: &Ask) -> Reply {
    for _ in 0..200 {
        let reply = ask.clone().send().await;
        if reply.status == 429 {
            return reply;
        }
    }
    panic!("never too much: {ask:?}");
}

/// Asks until it is too much, and then again as late as the answer says.
async fn flooded_and_waited(ask: Ask) -> Reply {
    let refused = flood(&ask).await;
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert_eq!(seconds, 1);
    refused.refused(429, "rate_limited");
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    ask.send().await
}

async fn counted(stage: &Stage, limit: &str) -> u64 {
    let text = stage.as_role(Role::Operator, "GET", "/metrics").send().await.body;
    let name = format!("kasm_autoscale_rate_limited_total{{limit=\"{limit}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn s_16_a_flood_with_one_token_harms_no_other() {
    let stage = Stage::with(limited(CallerLimits { token: FEW, ..CallerLimits::NONE })).await;
    let viewer = stage.as_role(Role::Viewer, "GET", "/v1/pools");
    let refused = flood(&viewer).await;
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=600).contains(&seconds), "{seconds}");
    refused.refused(429, "rate_limited");
    stage.as_role(Role::Broker, "GET", "/v1/pools").send().await.expect(200);
    // What is refused for another reason counts as well.
    stage.as_role(Role::Broker, "GET", "/metrics").send().await.refused(403, "forbidden");
    flood(&stage.as_role(Role::Broker, "GET", "/metrics")).await.refused(429, "rate_limited");
    assert_eq!(stage.bare("GET", "/healthz").send().await.status, 200);
    assert!(counted(&stage, "token").await >= 2);
}

#[tokio::test]
async fn s_16_strangers_are_counted_by_their_address() {
    let stage = Stage::with(limited(CallerLimits { address: FEW, ..CallerLimits::NONE })).await;
    let at = |address: &str, method: &str, path: &str| stage.bare(method, path).header("x-forwarded-for", address);
    let forged = "Bearer kasm_admin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let floods = [
        ("10.0.0.1", at("10.0.0.1", "GET", "/healthz")),
        ("10.0.0.2", at("10.0.0.2", "GET", "/v1/pools")),
        ("10.0.0.3", at("10.0.0.3", "GET", "/v1/pools").header("authorization", forged)),
        ("10.0.0.4", at("10.0.0.4", "GET", "/nowhere")),
        ("10.0.0.5", at("10.0.0.5", "BREW", "/v1/pools")),
        ("10.0.0.6", at("10.0.0.6", "POST", "/v1/login").json(&json!({ "user": 1 }))),
        ("10.0.0.7", at("10.0.0.7", "POST", "/api/set_server_status?token=x")),
        ("2001:db8::1", at("2001:db8::1", "GET", "/openapi.json")),
    ];
    for (address, flood_of) in &floods {
        let refused = flood(flood_of).await;
        // All that a stranger can ask from there is refused, and all that somebody with a token asks is not.
        at(address, "GET", "/healthz").send().await.refused(429, "rate_limited");
        let admin = stage.admin("GET", "/v1/pools").header("x-forwarded-for", address);
        admin.send().await.expect(200);
        refused.refused(429, "rate_limited");
    }
    // A network of IPv6 is one address; another one is another.
    at("2001:db8::ffff:2", "GET", "/healthz").send().await.refused(429, "rate_limited");
    assert_eq!(at("2001:db8:0:1::1", "GET", "/healthz").send().await.status, 200);
    assert!(counted(&stage, "address").await >= 16);
}

#[tokio::test]
async fn s_16_a_user_is_counted_with_all_his_logins() {
    let stage = Stage::with(limited(CallerLimits { user: FEW, ..CallerLimits::NONE })).await;
    let first = stage.as_user("bob", "GET", "/v1/login").await;
    let second = stage.as_user("bob", "GET", "/v1/login").await;
    flood(&first).await.refused(429, "rate_limited");
    second.send().await.refused(429, "rate_limited");
    stage.as_role(Role::User, "GET", "/v1/login").send().await.expect(200);
    assert!(counted(&stage, "user").await >= 2);
}

#[tokio::test]
async fn s_16_who_waits_as_long_as_he_is_told_is_served_again() {
    let few = CallerLimits { address: QUICK, token: QUICK, user: QUICK, ..CallerLimits::NONE };
    let stage = Stage::with(limited(few)).await;
    flooded_and_waited(stage.as_role(Role::Viewer, "GET", "/v1/pools")).await.expect(200);
    flooded_and_waited(stage.as_role(Role::User, "GET", "/v1/login")).await.expect(200);
    assert_eq!(flooded_and_waited(stage.bare("GET", "/healthz")).await.status, 200);
}

#[tokio::test]
async fn s_16_a_user_has_so_many_requests_under_way() {
    let stage = Stage::with(limited(CallerLimits { user_requests: 2, ..CallerLimits::NONE })).await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    let none = config("a", json!({ "max_servers": 0 }));
    stage.admin("POST", "/v1/pools/office/configs").json(&none).send().await.expect(201);
    stage.admin("POST", "/v1/workspaces").json(&json!({ "name": "desk", "pool": "office" })).send().await.expect(201);
    let bob = stage.as_user("bob", "POST", "/v1/workspaces/desk/launch?wait=60s").await;
    let waits = [tokio::spawn(bob.clone().send()), tokio::spawn(bob.clone().send())];
    let looks = Ask { method: "GET".into(), path: "/v1/login".into(), ..bob.clone() };
    // Until both are under way.
    let refused = flood_until(&looks).await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.refused(429, "too_many_at_once");
    stage.as_role(Role::User, "GET", "/v1/login").send().await.expect(200);
    assert!(counted(&stage, "user_requests").await >= 1);
    // There is room again when they have ended.
    let id = stage.admin("GET", "/v1/pools/office/sessions").send().await.expect(200)["sessions"][0]["id"].clone();
    stage.admin("DELETE", &format!("/v1/pools/office/sessions/{}", id.as_str().unwrap())).send().await.expect(200);
    for wait in waits {
        assert!(wait.await.unwrap().status < 400);
    }
    looks.send().await.expect(200);
}

async fn flood_until(ask: &Ask) -> Reply {
    for _ in 0..1000 {
        let reply = ask.clone().send().await;
        if reply.status == 429 {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never too much: {ask:?}");
}

#[tokio::test]
async fn s_16_a_user_has_so_many_sessions_over_all_pools() {
    let stage = Stage::with(limited(CallerLimits { user_sessions: 2, ..CallerLimits::NONE })).await;
    let pools = ["one", "two", "three", "four"];
    for pool in pools {
        stage.admin("POST", "/v1/pools").json(&json!({ "name": pool })).send().await.expect(201);
        let none = config("a", json!({ "max_servers": 0 }));
        stage.admin("POST", &format!("/v1/pools/{pool}/configs")).json(&none).send().await.expect(201);
        stage.admin("POST", "/v1/workspaces").json(&json!({ "name": pool, "pool": pool })).send().await.expect(201);
    }
    let ask = |pool: &str, user: &str| {
        stage.as_role(Role::Broker, "POST", &format!("/v1/pools/{pool}/sessions")).json(&json!({ "user": user })).send()
    };
    let first = ask("one", "ann@corp.example").await.expect(202);
    ask("two", "ann@corp.example").await.expect(202);
    ask("one", "ann@corp.example").await.expect(202);
    let error = ask("three", "ann@corp.example").await.refused(409, "too_many_sessions");
    assert!(error["message"].as_str().unwrap().contains("end one first"), "{error}");
    // By launching, too; others are not concerned; and one that has ended makes room.
    stage.as_role(Role::User, "POST", "/v1/workspaces/three/launch").send().await.refused(409, "too_many_sessions");
    stage.as_user("bob", "POST", "/v1/workspaces/three/launch").await.send().await.expect(202);
    let path = format!("/v1/pools/one/sessions/{}", first["id"].as_str().unwrap());
    stage.admin("DELETE", &path).send().await.expect(200);
    stage.as_role(Role::User, "POST", "/v1/workspaces/three/launch").send().await.expect(202);
    assert_eq!(counted(&stage, "user_sessions").await, 2);

    // Many at once are no more than one after the other.
    for round in 0..20 {
        let user = format!("user-{round}");
        let asked: Vec<_> = pools.iter().map(|pool| tokio::spawn(ask(pool, &user))).collect();
        let mut placed = 0;
        for reply in asked {
            let reply = reply.await.unwrap();
            placed += usize::from(reply.status == 202);
            assert!(reply.status == 202 || reply.status == 409, "{reply:?}");
        }
        assert!(placed <= 2, "{placed} sessions of one user");
    }
}

#[tokio::test]
async fn a_broker_and_a_user_never_meet_the_limits_that_nobody_has_set() {
    let stage = Stage::with(Limits::default()).await;
    for _ in 0..300 {
        stage.as_role(Role::Broker, "GET", "/v1/pools").send().await.expect(200);
    }
    for _ in 0..100 {
        stage.as_role(Role::User, "GET", "/v1/workspaces").send().await.expect(200);
    }
    let login: Value = stage.login("bob", USER_PASSWORD).send().await.expect(200);
    assert!(login["token"].is_string());
}
