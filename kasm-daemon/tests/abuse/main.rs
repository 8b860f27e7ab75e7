//! Hostile requests by the million, through the real listener on loopback, while the daemon goes on serving good ones.
//!
//! Requests are drawn from the OpenAPI document and a seed: every route with the wrong caller, strange names, broken and
//! oversized bodies, forged and replayed tokens, and bytes that are no HTTP. `make abuse` sends a million of them; the ordinary
//! test run sends fewer (`KASM_ABUSE_REQUESTS`, `KASM_ABUSE_SEED`).

#[path = "../api/client.rs"]
#[allow(dead_code, reason = "the tests of the API use all of it")]
mod client;
#[path = "../api/stage.rs"]
#[allow(dead_code, reason = "the tests of the API use all of it")]
mod stage;

mod bodies;
mod citizen;
mod document;
mod raw;
mod requests;
mod scope;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kasm_autoscale_core::testing::entropy::Seeded;
use serde_json::json;

use document::Api;
use requests::{Callers, Draw};
use stage::{Stage, config};

/// How many clients send at once.
const CLIENTS: u64 = 12;
/// One request in so many is no HTTP at all, or breaks off; it needs a connection of its own.
const RAW_ONE_IN: u64 = 12;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name)
        .map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
}

/// Counts what was sent and how it was answered.
#[derive(Default)]
pub(crate) struct Tally {
    sent: AtomicU64,
    kinds: Mutex<BTreeMap<String, u64>>,
    broken: Mutex<Vec<String>>,
}

impl Tally {
    pub(crate) fn count(&self, kind: &str, status: u16) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        *self.kinds.lock().unwrap().entry(format!("{kind}: {status}")).or_default() += 1;
    }

    /// Something that must not be. The first few are told.
    pub(crate) fn broken(&self, what: String) {
        self.broken.lock().unwrap().push(what);
    }

    fn is_broken(&self) -> bool {
        self.broken.lock().unwrap().len() > 20
    }
}

/// Resident memory of this process, in KiB: the daemon's and its clients'.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Victims to be abused, and a pool of good citizens that nobody with the right to change it is sent to.
async fn town() -> Stage {
    let stage = Stage::new().await;
    let good =
        json!({ "minimum_available_sessions": 2, "max_servers": 8, "reusable": true, "max_sessions_per_server": 2 });
    stage.pool_with("good", config("a", good)).await;
    for pool in requests::VICTIMS {
        stage.admin("POST", "/v1/pools").json(&json!({ "name": pool })).send().await.expect(201);
        let config = config("a", json!({ "max_servers": 0 }));
        stage.admin("POST", &format!("/v1/pools/{pool}/configs")).json(&config).send().await.expect(201);
    }
    stage
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g_11_hostile_requests_harm_nobody() {
    let wanted = number("KASM_ABUSE_REQUESTS", 20_000);
    let seed = number("KASM_ABUSE_SEED", 1);
    let panics = Arc::new(AtomicU64::new(0));
    let (before, counter) = (std::panic::take_hook(), panics.clone());
    std::panic::set_hook(Box::new(move |info| {
        counter.fetch_add(1, Ordering::Relaxed);
        before(info);
    }));
    let stage = Arc::new(town().await);
    let api = Arc::new(Api::read());
    let callers = Callers::of(&stage).await;
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let citizen = tokio::spawn(citizen::lives(stage.clone(), stop.clone()));
    let sloths = tokio::spawn(raw::sloths(stage.address, stop.clone()));

    let mut warm = 0;
    // The first tenth fills pools, caches and allocators; from there on memory must not grow with the requests.
    for (share, part) in [(wanted / 10, "warm"), (wanted - wanted / 10, "rest")] {
        let end = tally.sent.load(Ordering::Relaxed) + share;
        let clients = (0..CLIENTS).map(|client| {
            let entropy = Seeded::stream(seed, &format!("{part}-{client}"));
            let draw = Draw::new(entropy, api.clone(), callers.clone());
            tokio::spawn(abuses(stage.address, draw, tally.clone(), end))
        });
        let clients: Vec<_> = clients.collect();
        for client in clients {
            client.await.unwrap();
        }
        if warm == 0 {
            warm = resident();
        }
    }
    stop.store(true, Ordering::Relaxed);
    let served = citizen.await.unwrap();
    let slow = sloths.await.unwrap();
    let (after, sent) = (resident(), tally.sent.load(Ordering::Relaxed));

    let growth = after * 100 / warm.max(1);
    tell(
        &tally,
        &[
            ("hostile requests", format!("{sent} (seed {seed})")),
            ("good ones between", served.to_string()),
            ("slow connections", slow.to_string()),
            ("memory", format!("{warm} KiB after a tenth, {after} KiB at the end: {growth} %")),
        ],
    );
    let broken = std::mem::take(&mut *tally.broken.lock().unwrap());
    assert!(broken.is_empty(), "{} promises broken, the first: {:#?}", broken.len(), &broken[..broken.len().min(5)]);
    assert_eq!(panics.load(Ordering::Relaxed), 0, "panics");
    assert!(sent >= wanted, "{sent} of {wanted} were sent");
    assert!(served >= 20 && slow >= 8, "{served} good requests, {slow} slow connections");
    assert!(growth < 200, "memory grows with hostile requests: {warm} KiB, then {after} KiB");
    // All is as it was, and nothing was found that does not add up.
    let stage = Arc::into_inner(stage).unwrap();
    for pool in stage.host.pools() {
        let checked = pool.look(|pool| (pool.check(), pool.report())).await.unwrap();
        assert_eq!(checked.0, Ok(()), "{}", pool.name());
        assert!(checked.1.configs.iter().all(|config| config.freeze.is_none()), "{:?}", checked.1);
    }
}

/// What was sent and how it was answered, for whoever runs it with `--nocapture`.
#[allow(clippy::print_stderr, reason = "figures are what the long run is for")]
fn tell(tally: &Tally, figures: &[(&str, String)]) {
    for (kind, count) in tally.kinds.lock().unwrap().iter() {
        eprintln!("{count:>9}  {kind}");
    }
    for (name, figure) in figures {
        eprintln!("{name:<18} {figure}");
    }
}

async fn abuses(address: std::net::SocketAddr, mut draw: Draw, tally: Arc<Tally>, end: u64) {
    let mut line = wire::Line::new(address);
    while tally.sent.load(Ordering::Relaxed) < end && !tally.is_broken() {
        if draw.one_in(RAW_ONE_IN) {
            raw::send(address, &mut draw, &tally).await;
            continue;
        }
        let request = draw.request();
        match line.ask(&request.bytes, request.method == "HEAD").await {
            Ok(reply) => {
                tally.count(request.kind, reply.status);
                if let Err(why) = request.judge(&reply) {
                    let shown: String = String::from_utf8_lossy(&request.bytes).chars().take(600).collect();
                    tally.broken(format!("{why}: {shown:?} was answered {} {}", reply.status, reply.body));
                }
            }
            Err(why) => tally.broken(format!(
                "{why}: {:?}",
                String::from_utf8_lossy(&request.bytes[..request.bytes.len().min(600)])
            )),
        }
    }
}
