//! Pools and configs as people write them.

use kasm_autoscale_core::config::{ConfigSpec, Invalid, JsonObject, PoolSpec};
use kasm_autoscale_core::id::{DeploymentId, PoolId};
use serde_json::{Value, json};

use crate::generator::Shape;
use crate::{Target, Verdict, is_worded};

/// Autoscale configs: what is accepted comes back from its own JSON and keeps its bounds; what is refused is refused field by
/// field.
pub const CONFIG: Target = Target {
    name: "config",
    shape: Shape::Json,
    examples: || {
        let plain = json!({ "name": "west", "provider": "aws" });
        let full = json!({
            "name": "west", "enabled": true, "zone": "default", "connection_type": "rdp", "connection_port": 3389,
            "connection_address": "10.0.0.1", "connection_username": "CORP\\{sso_username}", "connection_password": "{sso_cred}",
            "connection_info": { "guac": { "settings": { "remote-app": "||Calc" } } }, "reusable": true,
            "minimum_available_sessions": 5, "max_sessions_per_server": 2, "max_servers": 10, "downscale_backoff": "30m",
            "require_checkin": true, "boot_deadline": "15m", "priority": 3, "breaker_failures": 3, "breaker_window": 9,
            "keep_failed_for": "1h", "keep_failed_max": 2, "provider": "aws", "machine": { "size": 3, "more": [1, "x", null] },
            "startup_script": "echo '{domain}' \"{checkin_jwt}\"", "upstream_auth_address": "broker.example",
            "server_name_pattern": "desk-{number}", "ad_directory": "corp",
            "ad_computer_ou_dn": "OU=Desks,DC=corp,DC=example", "ad_recursive_cleanup": true,
        });
        let secret = json!({ "name": "x", "provider": "y", "connection_password": { "secret": "rdp" }, "connection_type": "ssh" });
        [plain, full, secret].iter().map(|value| value.to_string().into_bytes()).collect()
    },
    words: &[
        "name",
        "provider",
        "zone",
        "enabled",
        "{sso_cred}",
        "{sso_username}",
        "secret",
        "rdp",
        "kasmvnc",
        "1d",
        "0s",
        "7d",
        "{random}",
        "startup_script",
        "echo '{domain}'",
        "{",
        "minimum_available_sessions",
        "max_sessions_per_server",
        "ad_directory",
        "breaker_window",
        "keep_failed_for",
        "server_name_pattern",
        "a-b",
        "",
        "OU=x",
    ],
    check: |input| {
        let Ok(object) = serde_json::from_slice::<JsonObject>(input) else { return Verdict::Refused };
        match ConfigSpec::from_json(&object) {
            Ok(spec) => {
                let written = spec.to_json();
                assert_eq!(ConfigSpec::try_from(written.clone()).as_ref(), Ok(&spec), "{written}");
                assert!((1..=1000).contains(&spec.max_sessions_per_server.get()) && spec.max_servers <= 1_000_000);
                assert!(spec.minimum_available_sessions <= 1_000_000 && spec.boot_deadline.as_secs() >= 1);
                assert!(
                    (1..=64).contains(&spec.breaker_window)
                        && (1..=spec.breaker_window).contains(&spec.breaker_failures)
                );
                Verdict::Taken
            }
            Err(invalid) => expect_named(&invalid, input.len()),
        }
    },
    inputs: 250_000,
};

/// The settings of pools, likewise.
pub const POOL: Target = Target {
    name: "pool",
    shape: Shape::Json,
    examples: || {
        let plain = json!({ "name": "desktops" });
        let full = json!({
            "name": "desktops", "type": "server", "placement": "pack", "queue_deadline": "10m", "queue_max": 100,
            "keepalive_expiry": "1h",
        });
        [plain, full].iter().map(|value| value.to_string().into_bytes()).collect()
    },
    words: &[
        "name",
        "type",
        "server",
        "placement",
        "spread",
        "pack",
        "queue_deadline",
        "1s",
        "1d",
        "30d",
        "keepalive_expiry",
        "10s",
        "a b",
    ],
    check: |input| {
        let Ok(object) = serde_json::from_slice::<JsonObject>(input) else { return Verdict::Refused };
        let (deployment, pool) = (DeploymentId::from_bytes([1; 16]), PoolId::from_bytes([2; 16]));
        match PoolSpec::from_json(deployment, pool, &object) {
            Ok(spec) => {
                let Value::Object(written) = spec.to_json() else { panic!("{:?} is no object", spec.to_json()) };
                assert_eq!(PoolSpec::from_json(deployment, pool, &written).as_ref(), Ok(&spec));
                assert!(
                    spec.queue_deadline.as_secs() >= 1
                        && spec.keepalive_expiry.as_secs() >= 10
                        && spec.queue_max <= 1_000_000
                );
                Verdict::Taken
            }
            Err(invalid) => expect_named(&invalid, input.len()),
        }
    },
    inputs: 350_000,
};

/// Every mistake has a field and words, and what was given is shown shortened.
fn expect_named(invalid: &Invalid, length: usize) -> Verdict {
    assert!(!invalid.problems.is_empty(), "refused without a mistake");
    for problem in &invalid.problems {
        assert!(!problem.path.is_empty() && problem.path.len() <= length.max(60), "{problem:?}");
        // Mistakes in a script have one line each.
        is_worded(&problem.allowed, 700 + 2 * length);
        assert!(problem.given.len() <= 400, "{problem:?}");
    }
    Verdict::Refused
}
