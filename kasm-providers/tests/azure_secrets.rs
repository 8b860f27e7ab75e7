//! What is secret is in no error, log or `Debug`. A file of its own: whether an event is of interest to anybody is kept in mind
//! for the whole process, so tests that run beside this one could switch its log off.
#![cfg(feature = "azure")]

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use kasm_autoscale_core::ports::VmProvider;
use serde_json::Value;
use tracing::span;

#[path = "support/arm.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod arm;
#[path = "support/azure.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod azure;
#[path = "support/swagger.rs"]
mod swagger;
#[path = "support/tls.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod tls;

use arm::{Arm, CLIENT_SECRET, Fault, error};
use azure::{ADMIN_KEY, SCRIPT, key, machine, provider, spec};

/// Writes down every event and span of a thread, fields included.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl tracing::field::Visit for Log {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        write!(self.0.lock().expect("a lock"), "{field}={value:?} ").expect("a String takes everything");
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::DEBUG
    }
    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut self.clone());
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        self.0.lock().expect("a lock").push_str(&format!("\n{} ", event.metadata().target()));
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn no_secret_is_in_errors_logs_or_debug() {
    let log = Log::default();
    let _guard = tracing::subscriber::set_default(log.clone());
    let arm = Arm::start();
    let provider = provider(&arm);
    // What is sent first tells the secrets that are made on the way.
    provider.create(&spec(key(1, 1), &machine())).await.expect("accepted");
    let body: Value = serde_json::from_str(&arm.last("PUT").body).expect("JSON");
    let of = |name: &str| body["properties"]["osProfile"][name].as_str().expect("a text").to_owned();
    let (data, password) = (of("customData"), of("adminPassword"));
    // The worst of services: it repeats everything it was told.
    let words =
        format!("{data} {SCRIPT} {password} {CLIENT_SECRET} {ADMIN_KEY} $joinPassword = 'canary-join-9f3a' end");
    arm.next("PUT", "virtualMachines/", Fault::Answer(error(400, "InvalidParameter", &words)));
    let error = provider.create(&spec(key(1, 1), &machine())).await.expect_err("a failure");
    let spec = spec(key(1, 1), &machine());
    let shown = format!("{error} {error:?} {provider:?} {spec:?} {}", serde_json::to_string(&error).expect("JSON"));
    let log = log.0.lock().expect("a lock").clone();
    for text in [&shown, &log] {
        for secret in ["canary", &data, &data[..40], &password, "token-1"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    assert_eq!(error.message, "[hidden] [hidden] [hidden] [hidden] [hidden] [hidden] end");
    // One line says what was called, for whom, how long it took and how it ended.
    let line = log
        .lines()
        .find(|line| line.starts_with("kasm_providers::azure") && line.contains("invalid"))
        .unwrap_or_else(|| panic!("no line of ours in {log}"));
    let right = "operation=\"Microsoft.Compute/virtualMachines/write\"";
    for part in [right, &key(1, 1).uuid(), "milliseconds=", "outcome=invalid", "request_id=\"req-1\""] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
