//! Bodies: what a schema describes, and then something wrong with it.

use kasm_autoscale_core::testing::entropy::{Entropy, Seeded};
use serde_json::{Map, Value, json};

/// Texts that some program somewhere has taken for more than a text.
pub(crate) const POISON: [&str; 16] = [
    "'; DROP TABLE rows; --",
    "../../../../etc/passwd",
    "..\\..\\windows\\win.ini",
    "{startup}{{{}}}{__class__}",
    "</powershell><script>alert(1)</script>",
    "$(reboot)`reboot`;reboot|reboot",
    "a\r\nX-Injected: yes\r\n\r\n",
    "\u{1b}[2J\u{1b}]0;owned\u{7}",
    "\u{0}",
    "\u{202e}gpj.exe",
    "e\u{301}\u{301}\u{301}\u{301}",
    "%00%2e%2e%2f%n%s%x",
    "*)(objectClass=*))(|(cn=*",
    "CN=a\\,OU=b,DC=c",
    "\u{1f600}\u{1f600}",
    "-1",
];

/// Picks one.
pub(crate) fn one<'a, T: ?Sized>(entropy: &mut Seeded, all: &'a [&'a T]) -> &'a T {
    all[usize::try_from(entropy.pick(all.len() as u64)).unwrap()]
}

/// What a schema describes, small. No combination of what it draws makes machines.
pub(crate) fn sample(schemas: &Value, schema: &Value, entropy: &mut Seeded) -> Value {
    if let Some(target) = schema["$ref"].as_str() {
        let name = target.rsplit('/').next().unwrap();
        return sample(schemas, &schemas[name], entropy);
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[choice].as_array() {
            let all: Vec<&Value> = all.iter().collect();
            return sample(schemas, one(entropy, &all), entropy);
        }
    }
    let kind = schema["type"].as_array().map_or(&schema["type"], |kinds| &kinds[0]);
    match kind.as_str() {
        Some("object") => {
            let required = schema["required"].as_array().cloned().unwrap_or_default();
            let mut object = Map::new();
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                if required.contains(&json!(name)) || entropy.pick(3) == 0 {
                    let value = named(name, entropy);
                    object.insert(name.clone(), value.unwrap_or_else(|| sample(schemas, field, entropy)));
                }
            }
            object.into()
        }
        Some("array") => (0..entropy.pick(3)).map(|_| sample(schemas, &schema["items"], entropy)).collect(),
        Some("string") => json!(one(entropy, &["10m", "x", "30s", "default"])),
        Some("integer" | "number") => json!(entropy.pick(3)),
        Some("boolean") => json!(entropy.pick(2) == 0),
        _ => Value::Null,
    }
}

/// Values that get further than a sample of the type would.
fn named(field: &str, entropy: &mut Seeded) -> Option<Value> {
    Some(match field {
        "max_servers" => json!(0),
        "provider" => json!(one(entropy, &["cloud", "nowhere"])),
        "pool" => json!(one(entropy, &super::requests::VICTIMS)),
        "user" => json!(format!("victim-{}", entropy.pick(40))),
        "username" => json!(format!("nobody-{}", entropy.pick(5))),
        "name" => json!(one(entropy, &["victim-0", "victim-1", "extra-0", "extra-1", "a", "b", "filed"])),
        "role" => json!(one(entropy, &["viewer", "broker", "operator", "admin", "user"])),
        "expires_at" => json!(one(entropy, &["2099-01-31T08:00:00Z", "1999-01-31T08:00:00Z", "soon"])),
        "zone" => json!(one(entropy, &["default", "west"])),
        "status" => json!(one(entropy, &["running", "starting"])),
        _ => return None,
    })
}

/// Makes a mistake in a body. The name says which.
pub(crate) fn spoilt(mut value: Value, entropy: &mut Seeded) -> (&'static str, Vec<u8>) {
    let text = |value: &Value| value.to_string().into_bytes();
    let fields: Vec<String> = value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default();
    let field = if fields.is_empty() {
        String::new()
    } else {
        fields[usize::try_from(entropy.pick(fields.len() as u64)).unwrap()].clone()
    };
    match entropy.pick(18) {
        0 | 1 => ("as described", text(&value)),
        2 if field != "max_servers" => {
            value.as_object_mut().map(|object| object.remove(&field));
            ("a field left out", text(&value))
        }
        3 | 4 => {
            value[field] = match entropy.pick(9) {
                0 => Value::Null,
                1 => json!([]),
                2 => json!({ "secret": "rdp-password" }),
                3 => json!(-1),
                4 => json!(u64::MAX),
                5 => json!(1.5),
                6 => json!(true),
                7 => json!({ "a": { "b": [1] } }),
                _ => json!("text"),
            };
            ("another type", keep_machines_away(value))
        }
        5 | 6 => {
            value[field] = json!(one(entropy, &POISON));
            ("poison", keep_machines_away(value))
        }
        7 => {
            value[one(entropy, &POISON)] = json!(1);
            ("an unknown field", text(&value))
        }
        8 => {
            let inner = value.to_string();
            let twice =
                format!("{},\"{}\":1}}", inner.trim_end_matches('}'), if field.is_empty() { "a" } else { &field });
            ("a key twice", if field.is_empty() { b"{\"a\":1,\"a\":2}".to_vec() } else { twice.into_bytes() })
        }
        9 => {
            let depth = usize::try_from(entropy.range(65..=2000)).unwrap();
            let (open, close) = if entropy.pick(2) == 0 { ("[", "]") } else { ("{\"a\":", "}") };
            ("deep", format!("{{\"name\":{}1{}}}", open.repeat(depth), close.repeat(depth)).into_bytes())
        }
        10 => {
            let long = "x".repeat(usize::try_from(entropy.range(64..=20_000)).unwrap());
            value[field] = json!(long);
            ("long", keep_machines_away(value))
        }
        11 => {
            let mut bytes = text(&value);
            let at = usize::try_from(entropy.pick(bytes.len() as u64)).unwrap();
            bytes[at] = [0xff, 0xc0, 0x80, 0xed][usize::try_from(entropy.pick(4)).unwrap()];
            ("invalid UTF-8", bytes)
        }
        12 => {
            let mut bytes = text(&value);
            bytes.truncate(usize::try_from(entropy.pick(bytes.len() as u64)).unwrap());
            ("cut off", bytes)
        }
        13 => {
            let number = one(
                entropy,
                &["1e999", "-1e999", "0x10", "01", "1.", "NaN", "Infinity", "+1", "99999999999999999999999"],
            );
            ("a strange number", format!("{{\"name\":\"b\",\"queue_max\":{number}}}").into_bytes())
        }
        14 => (
            "no JSON",
            one(entropy, &["<xml/>", "name=a", "\u{feff}{}", "[]", "null", "\"\"", "{}{}", "{\"a\"}"])
                .as_bytes()
                .to_vec(),
        ),
        15 => ("half a character", b"{\"name\":\"\\ud800\",\"user\":\"\\udc00x\"}".to_vec()),
        16 if entropy.pick(40) == 0 => {
            ("huge", vec![b'['; usize::try_from(entropy.range(20_000..=1_100_000)).unwrap()])
        }
        _ => {
            let mut bytes = text(&value);
            let at = usize::try_from(entropy.pick(bytes.len() as u64)).unwrap();
            bytes[at] ^= 1 << entropy.pick(8);
            ("a bit turned", keep_bytes(bytes))
        }
    }
}

/// Whatever was spoilt: a config that a victim's operator is let set must not make machines, or the test makes them.
fn keep_machines_away(mut value: Value) -> Vec<u8> {
    if value.get("provider").is_some() {
        value["max_servers"] = json!(0);
    }
    value.to_string().into_bytes()
}

fn keep_bytes(bytes: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&bytes);
    if text.contains("provider") && !text.contains("\"max_servers\":0") { b"{".to_vec() } else { bytes }
}
