//! The words of a scenario's commands, as settings of a pool.

use std::time::Duration;

use kasm_autoscale_core::config::{ConfigSpec, PlacementPolicy, PoolSpec};
use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::ports::{Certainty, DirectoryError, DirectoryErrorKind, ErrorKind, ProviderError};
use kasm_autoscale_core::time::Span;
use serde_json::{Value, json};

use super::{capabilities, directory_facts, pool_spec, provider};

pub fn option<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

pub fn span(text: &str) -> Duration {
    Span::parse(text).unwrap_or_else(|| panic!("no duration: {text}")).0
}

pub fn error(words: &[&str]) -> ProviderError {
    let kind: ErrorKind = serde_json::from_value(json!(words[0])).unwrap();
    let certainty = if words.contains(&"unknown") { Certainty::Unknown } else { Certainty::NotApplied };
    let mut error = ProviderError::new(kind, certainty, "Code", "the provider's words");
    error.retry_after = option(words, "after").map(span);
    error
}

pub fn pool_settings(words: &[&str]) -> PoolSpec {
    let mut spec = pool_spec();
    spec.placement = if words.contains(&"placement=pack") { PlacementPolicy::Pack } else { PlacementPolicy::Spread };
    spec.queue_deadline = option(words, "queue").map_or(spec.queue_deadline, span);
    spec.keepalive_expiry = option(words, "keepalive").map_or(spec.keepalive_expiry, span);
    spec.queue_max = option(words, "queue_max").map_or(spec.queue_max, |text| text.parse().unwrap());
    spec
}

pub fn directory_error(words: &[&str]) -> DirectoryError {
    let kind: DirectoryErrorKind = serde_json::from_value(json!(words[0])).unwrap();
    let certainty = if words.contains(&"unknown") { Certainty::Unknown } else { Certainty::NotApplied };
    DirectoryError::new(kind, certainty, "code", "the directory's words")
}

/// `join` alone, or `join recursive`.
fn domain_join(object: &mut Value, words: &[&str]) {
    if words.contains(&"join") {
        object["ad_directory"] = json!("corp");
        object["ad_computer_ou_dn"] = json!("OU=Desks,DC=corp,DC=example");
        object["ad_recursive_cleanup"] = json!(words.contains(&"recursive"));
    }
}

pub fn config(words: &[&str]) -> ConfigSpec {
    let number = |name, default: u32| option(words, name).map_or(default, |text| text.parse().unwrap());
    let mut object = json!({
        "name": words[0],
        "provider": option(words, "provider").unwrap_or("aws"),
        "zone": option(words, "zone").unwrap_or("default"),
        "minimum_available_sessions": number("min", 0),
        "max_sessions_per_server": number("per", 1),
        "max_servers": number("max", 100),
        "reusable": words.contains(&"reusable"),
        "enabled": !words.contains(&"disabled"),
        "require_checkin": words.contains(&"checkin"),
        "downscale_backoff": option(words, "backoff").unwrap_or("10m"),
        "boot_deadline": option(words, "boot").unwrap_or("15m"),
        "server_name_pattern": option(words, "names"),
    });
    domain_join(&mut object, words);
    ConfigSpec::from_json(object.as_object().unwrap()).unwrap()
}

pub fn directory_known(words: &[&str]) -> Fact {
    let mut known = directory_facts();
    known.visibility_lag = option(words, "lag").map_or(known.visibility_lag, span);
    known.poll_busy = option(words, "busy").map_or(known.poll_busy, span);
    known.poll_idle = option(words, "idle").map_or(known.poll_idle, span);
    Fact::DirectoryKnown(words[0].parse().unwrap(), known)
}

pub fn provider_known(words: &[&str]) -> Fact {
    let mut known = capabilities();
    known.visibility_lag = option(words, "lag").map_or(known.visibility_lag, span);
    known.poll_busy = option(words, "busy").map_or(known.poll_busy, span);
    known.poll_idle = option(words, "idle").map_or(known.poll_idle, span);
    known.creates_in_flight_max =
        option(words, "inflight").map_or(known.creates_in_flight_max, |text| text.parse().unwrap());
    Fact::ProviderKnown(provider(words[0]), known)
}
