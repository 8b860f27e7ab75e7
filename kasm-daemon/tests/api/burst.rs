//! How fast sessions are given out over HTTP: a measurement, not a test.

use std::time::{Duration, Instant};

use kasm_daemon::auth::Role;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{Stage, config};

/// Asks for so many sessions over one connection; answers with the time that each took.
async fn asks(stage: &Stage, client: usize, count: usize) -> Vec<Duration> {
    let mut stream = TcpStream::connect(stage.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let token = &stage.tokens[&Role::Broker];
    let mut times = vec![];
    for number in 0..count {
        let body = json!({ "user": format!("u{client}-{number}") }).to_string();
        let text = format!(
            "POST /v1/pools/office/sessions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        #[allow(clippy::disallowed_methods, reason = "a measurement")]
        let started = Instant::now();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = vec![0; 8192];
        let mut read = 0;
        loop {
            read += stream.read(&mut answer[read..]).await.unwrap();
            let text = String::from_utf8_lossy(&answer[..read]);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.to_lowercase();
            let length = length.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned();
            if body.len() >= length.parse::<usize>().unwrap() {
                assert!(head.contains(" 202 ") || head.contains(" 201 "), "{text}");
                break;
            }
        }
        times.push(started.elapsed());
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: cargo test --release --test api burst -- --ignored --nocapture"]
async fn burst() {
    for clients in [1, 16, 64] {
        let stage = std::sync::Arc::new(Stage::new().await);
        stage
            .admin("POST", "/v1/pools")
            .json(&json!({ "name": "office", "queue_max": 10000 }))
            .send()
            .await
            .expect(201);
        stage
            .admin("POST", "/v1/pools/office/configs")
            .json(&config("a", json!({ "max_servers": 0 })))
            .send()
            .await
            .expect(201);
        let each = 2000 / clients;
        #[allow(clippy::disallowed_methods, reason = "a measurement")]
        let started = Instant::now();
        let all = (0..clients).map(|client| {
            let stage = stage.clone();
            tokio::spawn(async move { asks(&stage, client, each).await })
        });
        let mut times = vec![];
        for one in all.collect::<Vec<_>>() {
            times.extend(one.await.unwrap());
        }
        let took = started.elapsed();
        times.sort();
        let at = |part: usize| times[times.len() * part / 100];
        #[allow(clippy::print_stdout, reason = "a measurement")]
        {
            println!(
                "{clients} clients: {:.0} sessions a second, half in {:?}, 99 of 100 in {:?}",
                times.len() as f64 / took.as_secs_f64(),
                at(50),
                at(99)
            );
        }
    }
}
