//! Whatever of RunInstances the settings have no field for, written with the API's own names.
//!
//! An operator's object is checked against the names and types of the API, turned into parameters of the EC2 query
//! protocol and laid over the request that the SDK has written, before it is signed. Objects are merged member by
//! member, lists and simple values replace, `null` takes away.
//!
//! Source of the wire form: EC2 API Reference, "Query requests for Amazon EC2"; botocore's `protocols/input/ec2.json`.

use core::fmt::Write;

use kasm_autoscale_core::fields::{JsonObject, Problem, nearest, shown};
use serde_json::Value;

use super::names::{Kind, Member, Names, REQUEST, RUN_INSTANCES};

/// Members of the request that only we may set, each with the reason.
const OURS: [(&str, &str); 7] = [
    ("ClientToken", "it is the server's idempotency token"),
    ("DisableApiTermination", "a protected machine could not be deleted"),
    ("DryRun", "no machine would be made"),
    ("MaxCount", "one call makes one machine"),
    ("MinCount", "one call makes one machine"),
    ("TagSpecifications", "our tags are how machines are found again; use the field tags"),
    ("UserData", "it is the startup script"),
];

/// One change of the request's parameters.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Change {
    /// Takes a parameter and all below it away.
    Clear(String),
    /// Gives a parameter a value, in place of the one it had.
    Set(String, String),
}

/// Changes to the parameters of a RunInstances request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Overrides {
    changes: Vec<Change>,
}

impl Overrides {
    /// The value that a parameter of the request gets here, by its name on the wire; `None`: it is left as it was.
    pub(super) fn value(&self, parameter: &str) -> Option<&str> {
        self.changes.iter().find_map(|change| match change {
            Change::Set(name, value) if name == parameter => Some(value.as_str()),
            _ => None,
        })
    }

    /// Reads the field `overrides`. Every mistake goes into `problems`.
    pub(super) fn read(object: &JsonObject, problems: &mut Vec<Problem>) -> Self {
        let (object, path) = match object.get("instance_config") {
            // The outer key of Kasm Workspaces' own configurations.
            Some(Value::Object(inner)) if object.len() == 1 => (inner, "overrides.instance_config"),
            _ => (object, "overrides"),
        };
        let mut allowed = object.clone();
        for (name, reason) in OURS {
            if allowed.remove(name).is_some() {
                problems.push(Problem::new(
                    format!("{path}.{name}"),
                    "a value",
                    format!("cannot be overridden: {reason}"),
                ));
            }
        }
        delete_with_machine(&mut allowed, path, problems);
        let mut flat = Flat { names: RUN_INSTANCES, changes: Vec::new(), problems };
        flat.structure(&allowed, REQUEST, "", path);
        Self { changes: flat.changes }
    }

    /// The form body with the changes applied. Without changes it stays as it is, byte for byte.
    pub(super) fn apply(&self, body: &str) -> String {
        let mut pairs: Vec<(String, String)> = body
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        for change in &self.changes {
            match change {
                Change::Clear(prefix) => pairs.retain(|(key, _)| !is_at_or_below(key, prefix)),
                Change::Set(key, value) => {
                    pairs.retain(|(other, _)| other != key);
                    pairs.push((key.clone(), percent_encoded(value)));
                }
            }
        }
        let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join("&")
    }
}

fn is_at_or_below(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Makes volumes and network interfaces go with their machine: EC2 keeps every volume but the root by default
/// (API Reference, EbsBlockDevice), and nobody would ever delete what a machine leaves behind.
fn delete_with_machine(object: &mut JsonObject, path: &str, problems: &mut Vec<Problem>) {
    let mut close = |part: &mut JsonObject, path: String| match part.get("DeleteOnTermination") {
        None | Some(Value::Null) => {
            part.insert("DeleteOnTermination".to_owned(), Value::Bool(true));
        }
        Some(Value::Bool(false)) => {
            let allowed = "true or nothing: nobody deletes what a deleted machine leaves behind";
            problems.push(Problem::new(format!("{path}.DeleteOnTermination"), "false", allowed));
        }
        Some(_) => (),
    };
    let mut each = |name: &str, visit: &mut dyn FnMut(&mut JsonObject, String)| {
        let items = object.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten();
        for (index, item) in items.enumerate() {
            if let Value::Object(item) = item {
                visit(item, format!("{path}.{name}[{index}]"));
            }
        }
    };
    each("BlockDeviceMappings", &mut |mapping, path| {
        if let Some(Value::Object(ebs)) = mapping.get_mut("Ebs") {
            close(ebs, format!("{path}.Ebs"));
        }
    });
    each("NetworkInterfaces", &mut |interface, path| {
        // One that existed before belongs to somebody else.
        if !interface.contains_key("NetworkInterfaceId") {
            close(interface, path);
        }
    });
}

/// Turns structures into parameters.
struct Flat<'a> {
    names: Names,
    changes: Vec<Change>,
    problems: &'a mut Vec<Problem>,
}

impl Flat<'_> {
    /// The members of `object`, which is a `structure`, below the parameter `prefix`; `path` is where people wrote it.
    fn structure(&mut self, object: &JsonObject, structure: &str, prefix: &str, path: &str) {
        // In the order of names: a repeated request must be the same, byte for byte.
        let mut sorted: Vec<(&String, &Value)> = object.iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        for (name, value) in sorted {
            let path = format!("{path}.{name}");
            let Some(member) = self.names.members(structure).find(|member| member.name == name) else {
                self.unknown(name, value, structure, path);
                continue;
            };
            self.member(value, member, &joined(prefix, member.wire), &path);
        }
    }

    fn member(&mut self, value: &Value, member: Member, key: &str, path: &str) {
        match (member.kind, value) {
            (_, Value::Null) => self.changes.push(Change::Clear(key.to_owned())),
            (Kind::List(item), Value::Array(items)) => {
                self.changes.push(Change::Clear(key.to_owned()));
                for (index, value) in items.iter().enumerate() {
                    self.value(value, Kind::named(item), &format!("{key}.{}", index + 1), &format!("{path}[{index}]"));
                }
            }
            (kind, value) => self.value(value, kind, key, path),
        }
    }

    fn value(&mut self, value: &Value, kind: Kind, key: &str, path: &str) {
        let (text, allowed) = match (kind, value) {
            (Kind::Structure(structure), Value::Object(object)) => return self.structure(object, structure, key, path),
            (Kind::Text | Kind::Time, Value::String(text)) => (Some(text.clone()), ""),
            (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                (Some(number.to_string()), "")
            }
            (Kind::Boolean, Value::Bool(flag)) => (Some(flag.to_string()), ""),
            (Kind::Text, _) => (None, "a text in quotes"),
            (Kind::Time, _) => (None, "a time as in \"2026-11-20T08:00:00Z\""),
            (Kind::Integer, _) => (None, "a whole number"),
            (Kind::Boolean, _) => (None, "true or false"),
            (Kind::Structure(_), _) => (None, "an object"),
            (Kind::List(_), _) => (None, "a list"),
        };
        match text {
            Some(text) => self.changes.push(Change::Set(key.to_owned(), text)),
            None => self.problems.push(Problem::new(path, shown(value), allowed)),
        }
    }

    fn unknown(&mut self, name: &str, value: &Value, structure: &str, path: String) {
        let known: Vec<&str> = self.names.members(structure).map(|member| member.name).collect();
        let allowed = match nearest(name, &known) {
            Some(near) => format!("{structure} of the EC2 API has no such member; did you mean {near:?}?"),
            None => format!("{structure} of the EC2 API has no such member; it has {}", known.join(", ")),
        };
        self.problems.push(Problem::new(path, shown(value), allowed));
    }
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Percent-encoded but for the unreserved characters of RFC 3986 §2.3, as Signature Version 4 wants it.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
#[path = "overrides_tests.rs"]
mod tests;
