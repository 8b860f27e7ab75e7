//! Every role at every route.

use kasm_daemon::api::access::{Access, ROUTES};
use kasm_daemon::auth::Role;

use crate::stage::Stage;

/// The matrix once more, written by hand: method, path, and who may: v(iewer), b(roker), o(perator), a(dmin), u(ser), * for everybody.
const MATRIX: &str = "
GET    /healthz                                          *
GET    /openapi.json                                     *
POST   /api/set_server_status                            *
GET    /metrics                                          v-oa
GET    /v1/pools                                         vboa
POST   /v1/pools                                         --oa
GET    /v1/pools/{pool}                                  vboa
PUT    /v1/pools/{pool}                                  --oa
DELETE /v1/pools/{pool}                                  --oa
GET    /v1/pools/{pool}/configs                          v-oa
POST   /v1/pools/{pool}/configs                          --oa
GET    /v1/pools/{pool}/configs/{config}                 v-oa
PUT    /v1/pools/{pool}/configs/{config}                 --oa
DELETE /v1/pools/{pool}/configs/{config}                 --oa
POST   /v1/pools/{pool}/configs/{config}/enable          --oa
POST   /v1/pools/{pool}/configs/{config}/disable         --oa
POST   /v1/pools/{pool}/configs/{config}/acknowledge-loss --oa
GET    /v1/pools/{pool}/servers                          v-oa
GET    /v1/pools/{pool}/servers/{server}                 v-oa
DELETE /v1/pools/{pool}/servers/{server}                 --oa
POST   /v1/pools/{pool}/servers/{server}/drain           --oa
POST   /v1/pools/{pool}/servers/{server}/undrain         --oa
GET    /v1/pools/{pool}/sessions                         vboa
POST   /v1/pools/{pool}/sessions                         -b-a
GET    /v1/pools/{pool}/sessions/{session}               vboa
DELETE /v1/pools/{pool}/sessions/{session}               -boa
POST   /v1/pools/{pool}/sessions/{session}/keepalive     -b-a
GET    /v1/pools/{pool}/why                              v-oa
GET    /v1/pools/{pool}/events                           v-oa
GET    /v1/ldap                                          v-oa
POST   /v1/login                                         *
GET    /v1/login                                         u
GET    /v1/workspaces                                    vboau
POST   /v1/workspaces                                    --oa
GET    /v1/workspaces/{workspace}                        vboau
PUT    /v1/workspaces/{workspace}                        --oa
DELETE /v1/workspaces/{workspace}                        --oa
POST   /v1/workspaces/{workspace}/launch                 u
GET    /v1/workspaces/{workspace}/sessions/{session}     u
DELETE /v1/workspaces/{workspace}/sessions/{session}     u
POST   /v1/workspaces/{workspace}/sessions/{session}/keepalive u
POST   /v1/logout                                        u
";

fn matrix() -> Vec<(&'static str, &'static str, &'static str)> {
    let line = |line: &'static str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[0], words[1], words[2])
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
    for (method, path, column) in matrix {
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

#[tokio::test]
async fn every_role_gets_exactly_where_it_may() {
    let stage = Stage::new().await;
    for (method, path, column) in matrix() {
        // Nothing of this exists, so that whoever is let through changes nothing: he hears of something else than his role.
        let path = path
            .replace("{pool}", "no-pool")
            .replace("{config}", "no")
            .replace("{server}", "srv-1")
            .replace("{session}", "ses-1")
            .replace("{workspace}", "none");
        if column == "*" {
            let reply = stage.bare(method, &path).send().await;
            assert_ne!(reply.status, 403, "{method} {path}");
            continue;
        }
        let reply = stage.bare(method, &path).send().await;
        assert_eq!(reply.header("www-authenticate"), "Bearer realm=\"kasm-autoscale\"");
        reply.refused(401, "no_token");
        for wrong in [
            "Bearer ",
            "Bearer x",
            "Basic YTpi",
            "Bearer kasm_admin_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "Bearer kasmu_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ] {
            let reply = stage.bare(method, &path).header("authorization", wrong).send().await;
            assert_eq!(reply.status, 401, "{method} {path} {wrong}");
            assert!(!reply.header("www-authenticate").is_empty());
        }
        for role in Role::ALL {
            let reply = stage.as_role(role, method, &path).send().await;
            if may(column, role) {
                assert!(![401, 403, 500].contains(&reply.status), "{role} {method} {path}: {reply:?}");
            } else {
                let error = reply.refused(403, "forbidden");
                let message = error["message"].as_str().unwrap();
                let named = Role::ALL.into_iter().filter(|role| may(column, *role));
                for needed in named {
                    assert!(message.contains(needed.as_str()), "{method} {path}: {message}");
                }
                assert!(message.contains(&format!("has the role {role}")), "{message}");
            }
        }
    }
}

#[tokio::test]
async fn a_head_is_as_closed_as_its_get() {
    let stage = Stage::new().await;
    assert_eq!(stage.bare("HEAD", "/v1/pools").send().await.status, 401);
    assert_eq!(stage.as_role(Role::Broker, "HEAD", "/metrics").send().await.status, 403);
    let head = stage.as_role(Role::Viewer, "HEAD", "/v1/pools").send().await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}
