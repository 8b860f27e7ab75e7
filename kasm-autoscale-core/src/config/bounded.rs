//! Texts and objects that the core does not look into: whatever stands in them, there is only so much of it.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};

use serde_json::Value;

use crate::fields::{Fields, JsonObject, Problem, shown};

/// The longest address, in characters. A DNS name has 253 at most.
const ADDRESS_CHARS_MAX: usize = 255;
/// The largest free object, in bytes of JSON. It goes into every answer that shows its config, some into every session's.
const OBJECT_BYTES_MAX: usize = 65_536;

/// An address, as it was written; an empty one is none.
pub(super) fn address(fields: &mut Fields<'_>, name: &'static str) -> Option<String> {
    let text = fields.text(name).filter(|text| !text.is_empty())?;
    if text.chars().count() > ADDRESS_CHARS_MAX {
        let allowed = format!("at most {ADDRESS_CHARS_MAX} characters");
        fields.problem(Problem::new(name, shown(&Value::String(text)), allowed));
        return None;
    }
    Some(text)
}

/// An object, as it was written; none is an empty one.
pub(super) fn object(fields: &mut Fields<'_>, name: &'static str) -> JsonObject {
    let Some(object) = fields.object(name).map(ToOwned::to_owned) else { return JsonObject::new() };
    let bytes = Value::Object(object.clone()).to_string().len();
    if bytes > OBJECT_BYTES_MAX {
        let allowed = format!("at most {OBJECT_BYTES_MAX} bytes of JSON");
        fields.problem(Problem::new(name, format!("{bytes} bytes"), allowed));
        return JsonObject::new();
    }
    object
}
