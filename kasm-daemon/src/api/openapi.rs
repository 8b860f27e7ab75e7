//! The frame of the OpenAPI document. Routes bring their own part; who may call them comes from the table.

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    ResponseBuilder, ServerBuilder,
};

use super::access::{Access, ROUTES};
use crate::auth::Role;

const TOKEN: &str = "api_token";

const INTRODUCTION: &str = "\
Server pools that keep their free sessions.

Bodies are JSON objects. A field or parameter that nobody knows is refused, all mistakes are named at once, and a key that \
stands twice is a mistake. Times are RFC 3339 in UTC, durations are written as in `90s` or `1h30m`. Lists come in pages: \
`limit` says how many, `after` takes the `next` of the page before. Every error has the same shape, and every answer carries \
its request's id in `x-request-id`.

Callers bring `Authorization: Bearer TOKEN`. A token has one role: `viewer`, `broker`, `operator` or `admin`; each operation \
says in `x-roles` which may call it. How to connect to a session, with its password, is told to `broker`, `admin` and the \
session's own user alone. Users log in with their own name and password at `/v1/login`, and get a token with the role `user`.

Where client certificates are wanted, a caller without one may ask `/healthz` and check in at most; everything else is then \
answered with 403 and `no_client_certificate`.";

/// What every route is added to.
pub(super) fn preamble() -> OpenApi {
    let license = LicenseBuilder::new().name("MIT OR Apache-2.0").identifier(Some("MIT OR Apache-2.0")).build();
    let info = InfoBuilder::new()
        .title("kasm-daemon")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(INTRODUCTION))
        .license(Some(license))
        .build();
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(
        "An API token, as `kasm-daemon token NAME` makes it, or a user's token, as `/v1/login` answers with it.",
    ));
    let scheme = SecurityScheme::Http(scheme.build());
    let error = || ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build();
    let response = |text: &str| ResponseBuilder::new().description(text).content("application/json", error()).build();
    let components = ComponentsBuilder::new()
        .security_scheme(TOKEN, scheme)
        .response("Unauthorized", response("No API token, or one that is not accepted."))
        .response("Forbidden", response("The token's role may not do this."))
        .response(
            "Limited",
            response("Too many requests from this address, with this token or of this user. `Retry-After` says when to ask again."),
        )
        .response(
            "Unavailable",
            response(
                "Not now: too many requests at once, a pool does not answer, or the audit log cannot be written. `Retry-After` says when to ask again.",
            ),
        )
        .build();
    let tags = [
        ("pools", "Sets of servers that users are assigned to"),
        ("configs", "Autoscale configs: how servers are made for a pool, and how many sessions they keep free"),
        ("servers", "Servers, from the decision to make one until it is gone"),
        ("sessions", "Users' sessions, and the requests that wait for one"),
        ("workspaces", "What users see and launch"),
        ("tokens", "API tokens: which there are, making and revoking them"),
        ("users", "Users who log in with their own name and password"),
        ("audit", "Who asked for what, and what came of it"),
        ("decisions", "What was decided, and why"),
        ("machines", "What machines call"),
        ("daemon", "The daemon itself"),
    ];
    let tags = tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .components(Some(components))
        .tags(Some(tags))
        .build()
}

/// Writes at every operation who may call it, and what those who may not are answered.
pub(super) fn add_roles(document: &mut OpenApi) {
    for route in ROUTES {
        let Some(item) = document.paths.paths.get_mut(route.path) else { continue };
        let operation = match route.method {
            "GET" => &mut item.get,
            "PUT" => &mut item.put,
            "POST" => &mut item.post,
            "DELETE" => &mut item.delete,
            _ => continue,
        };
        if let Some(operation) = operation {
            add_role(operation, route.access);
        }
    }
}

fn add_role(operation: &mut Operation, access: Access) {
    let (roles, words) = match access {
        Access::Public => (vec![], "Role: none.".to_owned()),
        Access::CheckIn => (vec![], "Role: none; the check-in token is proof enough.".to_owned()),
        Access::Roles(roles) => {
            let names: Vec<&str> = roles.iter().copied().map(Role::as_str).collect();
            let words = format!("Role: {}.", names.join(", "));
            (names, words)
        }
    };
    let secured = matches!(access, Access::Roles(_));
    operation.security = Some(if secured { vec![SecurityRequirement::new(TOKEN, [] as [&str; 0])] } else { vec![] });
    operation.description = Some(match operation.description.take() {
        Some(text) if !text.is_empty() => format!("{text}\n\n{words}"),
        _ => words,
    });
    operation.extensions.get_or_insert_with(Extensions::default).insert("x-roles".into(), roles.into());
    operation.responses.responses.entry("429".into()).or_insert(RefOr::Ref(Ref::from_response_name("Limited")));
    if secured {
        for (status, name) in [("401", "Unauthorized"), ("403", "Forbidden"), ("503", "Unavailable")] {
            let response = RefOr::Ref(Ref::from_response_name(name));
            operation.responses.responses.entry(status.into()).or_insert(response);
        }
    }
}
