//! The OpenAPI document, as far as somebody needs it who wants to abuse what it describes.

use std::collections::BTreeSet;

use kasm_daemon::api::openapi_json;
use kasm_daemon::auth::Role;
use serde_json::Value;

/// One operation.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Who may call it; `None`: everybody.
    pub(crate) roles: Option<BTreeSet<Role>>,
    pub(crate) queries: Vec<String>,
    /// The schema of its body.
    pub(crate) body: Option<Value>,
    /// The statuses it is said to answer with.
    pub(crate) statuses: BTreeSet<u16>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) operations: Vec<Operation>,
    pub(crate) schemas: Value,
}

impl Api {
    pub(crate) fn read() -> Self {
        let document: Value = serde_json::from_str(&openapi_json()).unwrap();
        let mut operations = vec![];
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, described) in item.as_object().unwrap() {
                operations.push(Operation::read(method, path, described));
            }
        }
        Self { operations, schemas: document["components"]["schemas"].clone() }
    }
}

impl Operation {
    fn read(method: &str, path: &str, described: &Value) -> Self {
        let names = described["x-roles"].as_array().unwrap();
        let role = |name: &Value| Role::ALL.into_iter().find(|role| name == role.as_str()).unwrap();
        let parameters = described["parameters"].as_array().into_iter().flatten();
        let queries = parameters.filter(|parameter| parameter["in"] == "query");
        Self {
            method: method.to_uppercase(),
            path: path.into(),
            roles: (!names.is_empty()).then(|| names.iter().map(role).collect()),
            queries: queries.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect(),
            body: described.pointer("/requestBody/content/application~1json/schema").cloned(),
            statuses: described["responses"].as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect(),
        }
    }
}
