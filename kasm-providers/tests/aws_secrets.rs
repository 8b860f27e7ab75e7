//! What AWS is told in confidence stays there: not in errors, not in the log, not in anybody's `Debug`.
//!
//! A program of its own with one test: tracing asks whoever comes first whether a line is of interest to anybody, and
//! remembers the answer for all threads, so a test without a subscriber beside this one could silence it.
#![cfg(feature = "aws")]

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex};

use kasm_autoscale_core::ports::VmProvider;
use tracing::span;

#[path = "support/answers.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod answers;
#[path = "support/aws.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod aws;
#[path = "support/stub.rs"]
#[allow(dead_code, reason = "shared by several tests")]
mod stub;

use aws::{SCRIPT, SECRET_KEY, SESSION_TOKEN, key, provider, settings, spec};
use serde_json::json;
use stub::{Answer, Stub};

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
    let stub = Stub::start(|request| {
        // The worst of services: it repeats everything it was told.
        let user_data = request.parameter("UserData");
        let words = format!("{user_data} {SCRIPT} {SECRET_KEY} {SESSION_TOKEN} $joinPassword = 'canary-join-9f3a' end");
        Answer::Http(400, answers::error("InvalidParameterValue", &words))
    });
    let provider = provider(settings(&stub.url())).await;
    let script = spec(key(1, 1), &json!({ "ami": "ami-12345678", "instance_type": "m7i.large" }));
    let error = provider.create(&script).await.expect_err("the service refuses");
    let shown = format!("{error} {error:?} {provider:?} {script:?} {}", serde_json::to_string(&error).expect("JSON"));
    let log = log.0.lock().expect("a lock").clone();
    let user_data = stub.last().parameter("UserData");
    for text in [&shown, &log] {
        for secret in ["canary", &user_data, &user_data[..40]] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
    assert_eq!(error.message, "[hidden] [hidden] [hidden] [hidden] [hidden] [hidden] end");
    // One line says what was called, for whom, how long it took and how it ended.
    let line = log.lines().find(|line| line.starts_with("kasm_providers::aws ")).expect("a line of ours");
    for part in
        ["operation=\"RunInstances\"", &key(1, 1).uuid(), "milliseconds=", "outcome=invalid", "request_id=\"req-1\""]
    {
        assert!(line.contains(part), "{part} is not in {line}");
    }
}
