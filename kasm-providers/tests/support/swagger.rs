//! Checks bodies against the official description of the Compute API (`tests/data/azure`).

use serde_json::{Map, Value};

/// The definitions of the Compute API, version 2024-03-01, that a virtual machine and its extensions are made of.
const COMPUTE: &str = include_str!("../data/azure/compute-2024-03-01.json");

/// Everything in which `body` is not what the API calls `definition`: members it does not know or only gives, wrong types,
/// words it does not know, members that are missing.
pub(crate) fn mistakes(definition: &str, body: &Value) -> Vec<String> {
    let definitions: Map<String, Value> = serde_json::from_str(COMPUTE).expect("JSON");
    let mut checker = Checker { definitions: &definitions, mistakes: Vec::new() };
    checker.check(&definitions[definition], body, definition);
    checker.mistakes
}

struct Checker<'a> {
    definitions: &'a Map<String, Value>,
    mistakes: Vec<String>,
}

impl<'a> Checker<'a> {
    fn check(&mut self, schema: &'a Value, value: &Value, path: &str) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let definition = &self.definitions[name];
            return self.check(definition, value, path);
        }
        if let Some(words) = schema.get("enum").and_then(Value::as_array)
            && !words.contains(value)
        {
            self.mistakes.push(format!("{path}: {value} is none of {words:?}"));
        }
        let is_object = schema.get("properties").is_some() || schema.get("allOf").is_some();
        let fits = match schema.get("type").and_then(Value::as_str) {
            Some("string") => value.is_string(),
            Some("boolean") => value.is_boolean(),
            Some("integer") => value.is_i64() || value.is_u64(),
            Some("number") => value.is_number(),
            Some("array") => value.is_array(),
            Some("object") => value.is_object(),
            _ => !is_object || value.is_object(),
        };
        if !fits {
            self.mistakes.push(format!("{path}: {value} is of another type than {schema}"));
            return;
        }
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            values.iter().enumerate().for_each(|(index, value)| self.check(items, value, &format!("{path}[{index}]")));
        }
        if let Some(object) = value.as_object() {
            self.members(schema, object, path, is_object);
        }
    }

    fn members(&mut self, schema: &'a Value, object: &Map<String, Value>, path: &str, closed: bool) {
        let mut known = Vec::new();
        let mut required = Vec::new();
        self.collect(schema, &mut known, &mut required);
        for name in required {
            if !object.contains_key(name) {
                self.mistakes.push(format!("{path}.{name}: missing"));
            }
        }
        for (name, value) in object {
            let path = format!("{path}.{name}");
            match known.iter().find(|(known, _)| known == name) {
                Some((_, member)) if member.get("readOnly") == Some(&Value::Bool(true)) => {
                    self.mistakes.push(format!("{path}: only given by the service"));
                }
                Some((_, member)) => self.check(member, value, &path),
                None => match schema.get("additionalProperties") {
                    Some(inner) => self.check(inner, value, &path),
                    None if closed => self.mistakes.push(format!("{path}: no such member")),
                    None => (),
                },
            }
        }
    }

    /// The members of a schema and of all it is composed of.
    fn collect(&self, schema: &'a Value, known: &mut Vec<(&'a str, &'a Value)>, required: &mut Vec<&'a str>) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            return self.collect(&self.definitions[name], known, required);
        }
        let members = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        known.extend(members.map(|(name, member)| (name.as_str(), member)));
        required
            .extend(schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str));
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect(part, known, required);
        }
    }
}
