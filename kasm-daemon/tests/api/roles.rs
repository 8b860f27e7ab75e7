//! Every role at every route.

use kasm_daemon::api::access::{Access, ROUTES};
use kasm_daemon::api::openapi_json;
use kasm_daemon::auth::Role;
use serde_json::Value;

use crate::stage::Stage;

/// The matrix once more, written by hand: method, path, who may (v(iewer), b(roker), o(perator), a(dmin), u(ser), * for
/// everybody), and what those who may are answered who send nothing and ask for what is not there.
const MATRIX: &str = "
GET    /healthz                                                   *     200
GET    /openapi.json                                              *     200
POST   /api/set_server_status                                     *     401
GET    /metrics                                                   v-oa  200
GET    /v1/pools                                                  vboa  200
POST   /v1/pools                                                  --oa  415
GET    /v1/pools/{pool}                                           vboa  404
PUT    /v1/pools/{pool}                                           --oa  415
DELETE /v1/pools/{pool}                                           --oa  404
GET    /v1/pools/{pool}/configs                                   v-oa  404
POST   /v1/pools/{pool}/configs                                   --oa  415
GET    /v1/pools/{pool}/configs/{config}                          v-oa  404
PUT    /v1/pools/{pool}/configs/{config}                          --oa  415
DELETE /v1/pools/{pool}/configs/{config}                          --oa  404
POST   /v1/pools/{pool}/configs/{config}/enable                   --oa  404
POST   /v1/pools/{pool}/configs/{config}/disable                  --oa  404
POST   /v1/pools/{pool}/configs/{config}/acknowledge-loss         --oa  404
POST   /v1/pools/{pool}/configs/{config}/lift-freeze              ---a  404
GET    /v1/pools/{pool}/servers                                   v-oa  404
GET    /v1/pools/{pool}/servers/{server}                          v-oa  404
DELETE /v1/pools/{pool}/servers/{server}                          --oa  404
POST   /v1/pools/{pool}/servers/{server}/drain                    --oa  404
POST   /v1/pools/{pool}/servers/{server}/undrain                  --oa  404
GET    /v1/pools/{pool}/sessions                                  vboa  404
POST   /v1/pools/{pool}/sessions                                  -b-a  415
GET    /v1/pools/{pool}/sessions/{session}                        vboa  404
DELETE /v1/pools/{pool}/sessions/{session}                        -boa  404
POST   /v1/pools/{pool}/sessions/{session}/keepalive              -b-a  404
GET    /v1/pools/{pool}/why                                       v-oa  404
GET    /v1/pools/{pool}/events                                    v-oa  404
GET    /v1/audit                                                  ---a  200
GET    /v1/ldap                                                   v-oa  200
POST   /v1/login                                                  *     415
GET    /v1/login                                                  u     200
GET    /v1/workspaces                                             vboau 200
POST   /v1/workspaces                                             --oa  415
GET    /v1/workspaces/{workspace}                                 vboau 404
PUT    /v1/workspaces/{workspace}                                 --oa  415
DELETE /v1/workspaces/{workspace}                                 --oa  404
POST   /v1/workspaces/{workspace}/launch                          u     404
GET    /v1/workspaces/{workspace}/sessions/{session}              u     404
DELETE /v1/workspaces/{workspace}/sessions/{session}              u     404
POST   /v1/workspaces/{workspace}/sessions/{session}/keepalive    u     404
POST   /v1/logout                                                 u     204
DELETE /v1/logins/{user}                                          ---a  404
GET    /v1/tokens                                                 ---a  200
POST   /v1/tokens                                                 ---a  415
DELETE /v1/tokens/{token}                                         ---a  404
";

fn matrix() -> Vec<(&'static str, &'static str, &'static str, u16)> {
    let line = |line: &'static str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0], words[1], words[2], words[3].parse().unwrap())
    };
    MATRIX.lines().filter(|text| !text.is_empty()).map(line).collect()
}

fn may(column: &str, role: Role) -> bool {
    column == "*" || column.contains(role.as_str().chars().next().unwrap())
}

#[test]
fn the_table_is_the_matrix() {
    let matrix = matrix();
    assert_eq!(ROUTES.len(), matrix.len());
    for (method, path, column, _) in matrix {
        let route = ROUTES
            .iter()
            .find(|route| route.method == method && route.path == path)
            .unwrap_or_else(|| panic!("{method} {path}"));
        match route.access {
            Access::Public | Access::CheckIn => assert_eq!(column, "*", "{method} {path}"),
            Access::Roles(roles) => {
                for role in Role::ALL {
                    assert_eq!(roles.contains(&role), may(column, role), "{method} {path} {role}");
                }
            }
        }
    }
}

/// Every method that HTTP knows of and some that it does not.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"];

/// Tokens that nobody accepts.
const FORGED: [&str; 6] = [
    "Bearer ",
    "Bearer x",
    "Basic YTpi",
    "Bearer kasm_admin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "Bearer kasmu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "Bearer eyJhbGciOiJub25lIn0.eyJyb2xlIjoiYWRtaW4ifQ.",
];

/// The path with something in the place of its names: what is there, or what is not.
fn filled(path: &str, is_there: bool) -> String {
    let (pool, config, workspace) = if is_there { ("filed", "stone", "filed") } else { ("no-pool", "no", "none") };
    path.replace("{pool}", pool)
        .replace("{config}", config)
        .replace("{server}", "srv-1")
        .replace("{session}", "ses-1")
        .replace("{workspace}", workspace)
        .replace("{user}", "nobody@corp.example")
        .replace("{token}", "000000000000")
}

/// Every path of the OpenAPI document with every method and every role, and none. What the document has and the matrix has not
/// is a failure.
#[tokio::test]
async fn s_11_every_role_gets_exactly_where_it_may() {
    let stage = Stage::new().await;
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let (mut asked, mut matrix) = (0, matrix());
    for path in document["paths"].as_object().unwrap().keys() {
        for method in METHODS {
            let expected = matrix.iter().position(|row| row.0 == method && row.1 == path);
            let is_described = document["paths"][path].get(method.to_lowercase()).is_some();
            assert_eq!(is_described, expected.is_some(), "{method} {path} stands in one of document and matrix alone");
            // What a GET answers, its HEAD answers.
            let like = if method == "HEAD" { "GET" } else { method };
            match matrix.iter().find(|row| row.0 == like && row.1 == path) {
                Some((_, _, column, status)) => asked += may_and_may_not(&stage, method, path, column, *status).await,
                None => asked += nobody_may(&stage, method, path).await,
            }
        }
        matrix.retain(|row| row.1 != path);
    }
    assert!(matrix.is_empty(), "routes that are not there any more: {matrix:?}");
    assert!(asked > 2000, "{asked} requests");
}

/// A method that the path has not: whoever asks is told so.
async fn nobody_may(stage: &Stage, method: &str, path: &str) -> u32 {
    let path = filled(path, true);
    for role in Role::ALL {
        let reply = stage.as_role(role, method, &path).send().await;
        assert_eq!(reply.status, 405, "{role} {method} {path}");
        assert!(!reply.header("allow").is_empty(), "{method} {path}: {reply:?}");
    }
    assert_eq!(stage.bare(method, &path).send().await.status, 405, "{method} {path}");
    6
}

async fn may_and_may_not(stage: &Stage, method: &str, path: &str, column: &str, status: u16) -> u32 {
    let (there, nowhere) = (filled(path, true), filled(path, false));
    if column == "*" {
        assert_eq!(stage.bare(method, &nowhere).send().await.status, status, "{method} {nowhere}");
        for role in Role::ALL {
            assert_eq!(stage.as_role(role, method, &nowhere).send().await.status, status, "{role} {method} {nowhere}");
        }
        return 6;
    }
    let mut asked = 0;
    for path in [&there, &nowhere] {
        let reply = stage.bare(method, path).send().await;
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"kasm-autoscale\"");
        assert_eq!(reply.status, 401, "{method} {path}");
        for forged in FORGED {
            let reply = stage.bare(method, path).header("authorization", forged).send().await;
            assert_eq!(reply.status, 401, "{method} {path} {forged}");
            assert!(!reply.header("www-authenticate").is_empty());
            asked += 1;
        }
        // Whether something is there is no business of those who may not.
        for role in Role::ALL.into_iter().filter(|role| !may(column, *role)) {
            let reply = stage.as_role(role, method, path).send().await;
            assert_eq!(reply.status, 403, "{role} {method} {path}");
            if method != "HEAD" {
                let error = reply.refused(403, "forbidden");
                let message = error["message"].as_str().unwrap();
                for needed in Role::ALL.into_iter().filter(|role| may(column, *role)) {
                    assert!(message.contains(needed.as_str()), "{method} {path}: {message}");
                }
                assert!(message.contains(&format!("has the role {role}")), "{message}");
            }
            asked += 1;
        }
        asked += 1;
    }
    for role in Role::ALL.into_iter().filter(|role| may(column, *role)) {
        // Who logs out is gone: a user of its own, so that the next one is let in.
        let ask = if path == "/v1/logout" {
            stage.as_user("bob", method, &nowhere).await
        } else {
            stage.as_role(role, method, &nowhere)
        };
        let reply = ask.send().await;
        assert_eq!(reply.status, status, "{role} {method} {nowhere}: {reply:?}");
        asked += 1;
    }
    asked
}

#[tokio::test]
async fn a_head_is_as_closed_as_its_get() {
    let stage = Stage::new().await;
    assert_eq!(stage.bare("HEAD", "/v1/pools").send().await.status, 401);
    assert_eq!(stage.as_role(Role::Broker, "HEAD", "/metrics").send().await.status, 403);
    let head = stage.as_role(Role::Viewer, "HEAD", "/v1/pools").send().await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
