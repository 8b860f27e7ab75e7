//! The OpenAPI document: it describes every route, and describes it rightly.

use std::collections::BTreeSet;

use kasm_daemon::api::access::{Access, ROUTES};
use kasm_daemon::api::openapi_json;
use serde_json::{Value, json};

use crate::stage::{Stage, USER_PASSWORD, config};

fn document() -> Value {
    serde_json::from_str(&openapi_json()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let all = paths.flat_map(|(path, item)| {
        item.as_object()
            .unwrap()
            .iter()
            .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation))
    });
    all.collect()
}

#[test]
fn every_route_is_described_and_has_its_roles() {
    let document = document();
    let described: BTreeSet<(String, String)> =
        operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    let listed: BTreeSet<(String, String)> =
        ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(described, listed);
    assert_eq!(listed.len(), ROUTES.len(), "a route stands in the table twice");
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.to_lowercase()];
        let roles: Vec<&str> = match route.access {
            Access::Roles(roles) => roles.iter().map(|role| role.as_str()).collect(),
            Access::Public | Access::CheckIn => vec![],
        };
        assert_eq!(operation["x-roles"], json!(roles), "{} {}", route.method, route.path);
        assert_eq!(operation["security"], if roles.is_empty() { json!([]) } else { json!([{ "api_token": [] }]) });
        assert!(operation["description"].as_str().unwrap().contains("Role: "));
        if !roles.is_empty() {
            for status in ["401", "403", "503"] {
                assert!(operation["responses"].get(status).is_some(), "{} {} {status}", route.method, route.path);
            }
        }
    }
}

#[test]
fn the_document_holds_together() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} stands twice");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let declared: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| parameter["name"].as_str().unwrap())
            .collect();
        assert_eq!(in_path, declared, "{method} {path}");
        for parameter in &parameters {
            assert!(
                parameter["description"].is_string() && parameter["schema"].is_object(),
                "{method} {path} {parameter}"
            );
            assert_eq!(
                parameter["required"] == true,
                parameter["in"] == "path" || parameter["name"] == "token",
                "{method} {path} {parameter}"
            );
        }
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        for (status, response) in responses {
            assert!(response.get("$ref").is_some() || response["description"].is_string(), "{method} {path} {status}");
            let content = response["content"].as_object();
            let silent = response.get("$ref").is_some() || status == "204";
            assert_eq!(content.is_none(), silent, "{method} {path} {status}");
        }
        if ["POST", "PUT"].contains(&method.as_str())
            && responses.contains_key("422")
            && !path.ends_with("able")
            && !path.ends_with("launch")
        {
            assert!(operation["requestBody"].is_object(), "{method} {path}");
        }
    }
    let mut references = vec![];
    collect_references(&document, &mut references);
    assert!(references.len() > 50, "{}", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["description"].is_string(), "{name} is not described");
        for (field, described) in schema["properties"].as_object().into_iter().flatten() {
            let parts = described["oneOf"].as_array().into_iter().flatten();
            let text = parts.chain([described]).any(|part| part["description"].is_string());
            assert!(text, "{name}.{field} is not described");
        }
    }
}

fn collect_references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, field) in object {
                match field.as_str() {
                    Some(target) if key == "$ref" => found.push(target.into()),
                    _ => collect_references(field, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, found)),
        _ => {}
    }
}

/// Enough of JSON Schema for this document: `$ref`, `type`, `properties`, `required`, `items`, `oneOf`, `allOf`. Fields that are
/// not described are mistakes too, unless the schema describes none.
fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(document, document.pointer(&reference[1..]).unwrap(), value, at);
    }
    if let Some(one) = schema["oneOf"].as_array() {
        let tries: Vec<_> = one.iter().map(|schema| fits(document, schema, value, at)).collect();
        return if tries.iter().filter(|result| result.is_ok()).count() == 1 {
            Ok(())
        } else {
            Err(format!("{at}: {tries:?}"))
        };
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        fits(document, part, value, at)?;
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if !kinds.is_empty() && !kinds.contains(&kind) {
        return Err(format!("{at}: {kind} instead of {kinds:?}: {value}"));
    }
    if let (Some(properties), Some(object)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, field) in object {
            let schema = properties.get(name).ok_or_else(|| format!("{at}.{name} is not described"))?;
            fits(document, schema, field, &format!("{at}.{name}"))?;
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            object.get(required).ok_or_else(|| format!("{at}.{required} is missing"))?;
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, &schema["items"], item, &format!("{at}[{index}]"))?;
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_as_the_document_says() {
    let stage = Stage::new().await;
    let served = stage.bare("GET", "/openapi.json").send().await.expect(200);
    let document = document();
    assert_eq!(served, document);
    let server = stage.pool_with("office", config("a", json!({ "minimum_available_sessions": 1, "connection_password": { "secret": "rdp-password" }, "connection_username": "kasm" }))).await;
    let server = server["id"].as_str().unwrap();
    let body = |text: Value| Some(text);
    let steps = [
        ("GET", "/v1/pools", String::new(), None),
        ("GET", "/v1/pools/{pool}", String::new(), None),
        ("POST", "/v1/pools", String::new(), body(json!({ "name": "second" }))),
        ("POST", "/v1/pools", String::new(), body(json!({ "name": "second" }))),
        ("POST", "/v1/pools", String::new(), body(json!({ "name": "?" }))),
        ("GET", "/v1/pools/{pool}/configs", String::new(), None),
        ("GET", "/v1/pools/{pool}/configs/{config}", "a".into(), None),
        ("GET", "/v1/pools/{pool}/configs/{config}", "z".into(), None),
        ("GET", "/v1/pools/{pool}/servers", String::new(), None),
        ("GET", "/v1/pools/{pool}/servers/{server}", server.to_owned(), None),
        ("POST", "/v1/pools/{pool}/sessions", String::new(), body(json!({ "user": "ann" }))),
        ("POST", "/v1/pools/{pool}/sessions", String::new(), body(json!({ "user": "ann" }))),
        ("POST", "/v1/pools/{pool}/sessions", String::new(), body(json!({ "user": "bob", "zone": "x" }))),
        ("GET", "/v1/pools/{pool}/sessions", String::new(), None),
        ("GET", "/v1/pools/{pool}/sessions/{session}", "ses-1".into(), None),
        ("DELETE", "/v1/pools/{pool}/sessions/{session}", "ses-2".into(), None),
        ("POST", "/v1/pools/{pool}/sessions/{session}/keepalive", "ses-1".into(), None),
        ("POST", "/v1/pools/{pool}/sessions/{session}/keepalive", "ses-2".into(), None),
        ("GET", "/v1/pools/{pool}/why", String::new(), None),
        ("GET", "/v1/pools/{pool}/events", String::new(), None),
        ("POST", "/v1/pools/{pool}/servers/{server}/drain", server.to_owned(), None),
        ("POST", "/v1/pools/{pool}/servers/{server}/undrain", server.to_owned(), None),
        ("POST", "/v1/pools/{pool}/configs/{config}/disable", "a".into(), None),
        ("POST", "/v1/pools/{pool}/configs/{config}/enable", "a".into(), None),
        ("GET", "/v1/ldap", String::new(), None),
        ("POST", "/v1/login", String::new(), body(json!({ "username": "ann", "password": USER_PASSWORD }))),
        ("POST", "/v1/login", String::new(), body(json!({ "username": "ann", "password": "x" }))),
        ("POST", "/v1/login", String::new(), body(json!({ "user": "ann" }))),
        ("POST", "/v1/workspaces", String::new(), body(json!({ "name": "w", "pool": "office" }))),
        ("POST", "/v1/workspaces", String::new(), body(json!({ "name": "w", "pool": "office" }))),
        ("POST", "/v1/workspaces", String::new(), body(json!({ "name": "w" }))),
        ("GET", "/v1/workspaces", String::new(), None),
        ("GET", "/v1/workspaces/{workspace}", "w".into(), None),
        ("PUT", "/v1/workspaces/{workspace}", "w".into(), body(json!({ "pool": "office" }))),
        ("DELETE", "/v1/pools/{pool}", String::new(), None),
        ("DELETE", "/v1/workspaces/{workspace}", "x".into(), None),
        ("DELETE", "/v1/pools/{pool}/configs/{config}", "a".into(), None),
    ];
    for (method, template, id, body) in steps {
        let mut path = template.replace("{pool}", "office");
        for parameter in ["{config}", "{server}", "{session}", "{workspace}"] {
            path = path.replace(parameter, &id);
        }
        let ask = stage.admin(method, &path);
        let reply = if let Some(body) = &body { ask.json(body) } else { ask }.send().await;
        let response = &document["paths"][template][method.to_lowercase()]["responses"][reply.status.to_string()];
        assert!(response.is_object(), "{method} {path}: {} is not described: {reply:?}", reply.status);
        let schema = &response["content"]["application/json"]["schema"];
        fits(&document, schema, &reply.json(), "")
            .unwrap_or_else(|error| panic!("{method} {path} {}: {error}\n{}", reply.status, reply.body));
    }
}
