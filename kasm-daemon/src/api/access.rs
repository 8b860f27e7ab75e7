//! Who may call which route, as one table. The check reads it, the OpenAPI document reads it, the tests sweep it; a route
//! that does not stand here is refused to everybody.

use crate::auth::Role;

/// What a caller must bring.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Nothing.
    Public,
    /// The check-in token of a server, in the query.
    CheckIn,
    /// An API token with one of these roles.
    Roles(&'static [Role]),
}

/// A route, and who may call it.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The method, in capitals. `HEAD` goes where `GET` goes.
    pub method: &'static str,
    /// The path, with parameters in braces.
    pub path: &'static str,
    /// Who.
    pub access: Access,
}

const ANYONE: Access = Access::Roles(&[Role::Viewer, Role::Broker, Role::Operator, Role::Admin]);
/// Configs and servers are no business of a broker's.
const READ: Access = Access::Roles(&[Role::Viewer, Role::Operator, Role::Admin]);
const CHANGE: Access = Access::Roles(&[Role::Operator, Role::Admin]);
/// Both answer with passwords, which an operator does not need.
const BROKER: Access = Access::Roles(&[Role::Broker, Role::Admin]);
/// What only somebody may do who answers for a bug's consequences, for who gets in, or for everybody else.
const ADMIN: Access = Access::Roles(&[Role::Admin]);
/// An operator can end sessions anyway, by deleting their server.
const END_SESSIONS: Access = Access::Roles(&[Role::Broker, Role::Operator, Role::Admin]);

/// Whoever looks after workspaces, and the users they are for.
const WORKSPACES: Access = Access::Roles(&[Role::User, Role::Viewer, Role::Broker, Role::Operator, Role::Admin]);
const USER: Access = Access::Roles(&[Role::User]);

const fn route(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { method, path, access }
}

/// Every route.
pub const ROUTES: &[Route] = &[
    route("GET", "/healthz", Access::Public),
    route("GET", "/openapi.json", Access::Public),
    route("GET", "/metrics", READ),
    route("POST", "/api/set_server_status", Access::CheckIn),
    route("GET", "/v1/pools", ANYONE),
    route("POST", "/v1/pools", CHANGE),
    route("GET", "/v1/pools/{pool}", ANYONE),
    route("PUT", "/v1/pools/{pool}", CHANGE),
    route("DELETE", "/v1/pools/{pool}", CHANGE),
    route("GET", "/v1/pools/{pool}/configs", READ),
    route("POST", "/v1/pools/{pool}/configs", CHANGE),
    route("GET", "/v1/pools/{pool}/configs/{config}", READ),
    route("PUT", "/v1/pools/{pool}/configs/{config}", CHANGE),
    route("DELETE", "/v1/pools/{pool}/configs/{config}", CHANGE),
    route("POST", "/v1/pools/{pool}/configs/{config}/enable", CHANGE),
    route("POST", "/v1/pools/{pool}/configs/{config}/disable", CHANGE),
    route("POST", "/v1/pools/{pool}/configs/{config}/acknowledge-loss", CHANGE),
    route("POST", "/v1/pools/{pool}/configs/{config}/lift-freeze", ADMIN),
    route("GET", "/v1/pools/{pool}/servers", READ),
    route("GET", "/v1/pools/{pool}/servers/{server}", READ),
    route("DELETE", "/v1/pools/{pool}/servers/{server}", CHANGE),
    route("POST", "/v1/pools/{pool}/servers/{server}/drain", CHANGE),
    route("POST", "/v1/pools/{pool}/servers/{server}/undrain", CHANGE),
    route("GET", "/v1/pools/{pool}/sessions", ANYONE),
    route("POST", "/v1/pools/{pool}/sessions", BROKER),
    route("GET", "/v1/pools/{pool}/sessions/{session}", ANYONE),
    route("DELETE", "/v1/pools/{pool}/sessions/{session}", END_SESSIONS),
    route("POST", "/v1/pools/{pool}/sessions/{session}/keepalive", BROKER),
    route("GET", "/v1/pools/{pool}/why", READ),
    route("GET", "/v1/pools/{pool}/events", READ),
    route("GET", "/v1/audit", ADMIN),
    route("GET", "/v1/ldap", READ),
    route("POST", "/v1/login", Access::Public),
    route("GET", "/v1/login", USER),
    route("POST", "/v1/logout", USER),
    route("DELETE", "/v1/logins/{user}", ADMIN),
    route("GET", "/v1/tokens", ADMIN),
    route("POST", "/v1/tokens", ADMIN),
    route("DELETE", "/v1/tokens/{token}", ADMIN),
    route("GET", "/v1/workspaces", WORKSPACES),
    route("POST", "/v1/workspaces", CHANGE),
    route("GET", "/v1/workspaces/{workspace}", WORKSPACES),
    route("PUT", "/v1/workspaces/{workspace}", CHANGE),
    route("DELETE", "/v1/workspaces/{workspace}", CHANGE),
    route("POST", "/v1/workspaces/{workspace}/launch", USER),
    route("GET", "/v1/workspaces/{workspace}/sessions/{session}", USER),
    route("DELETE", "/v1/workspaces/{workspace}/sessions/{session}", USER),
    route("POST", "/v1/workspaces/{workspace}/sessions/{session}/keepalive", USER),
];

/// Who may call this route; `None` if there is none.
pub(crate) fn access(method: &str, path: &str) -> Option<Access> {
    let method = if method == "HEAD" { "GET" } else { method };
    ROUTES.iter().find(|route| route.method == method && route.path == path).map(|route| route.access)
}
