//! What fails, as operators see it: machines that are missing, machines kept for diagnosis, providers that hang or run dry.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kasm_autoscale_core::config::{ConfigSpec, JsonObject, Problem};
use kasm_autoscale_core::id::{PoolId, SecretName, ServerKey};
use kasm_autoscale_core::ports::{
    Capabilities, Finding, Listing, Machine, MachineRef, OpRef, Progress, ProviderError, Secrets, ServerSpec,
    VmProvider,
};
use kasm_autoscale_core::report::{ConfigReport, Fallback};
use kasm_autoscale_core::token::DeploymentKey;
use kasm_daemon::auth::Role;
use kasm_daemon::clock::Clock;
use kasm_daemon::directories::DirectoryRegistry;
use kasm_daemon::driver::{CallLimits, PoolHandle};
use kasm_daemon::file::DeclaredPool;
use kasm_daemon::host::{Host, Registry, World};
use kasm_daemon::metrics::Metrics;
use kasm_daemon::probe::{AddressGuard, NetProber};
use kasm_daemon::store::{SqliteStore, Store};
use kasm_providers::simulated::{SimulatedProvider, SimulatedSettings};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::stage::{KEY_BYTE, Stage, config, object};

/// The config `a` of the pool `office`, as `/why` shows it.
fn why_of_a(why: &Value) -> Value {
    why["configs"][0].clone()
}

#[tokio::test]
async fn a_mass_loss_raises_an_alarm_that_an_operator_acknowledges() {
    let stage = Stage::new().await;
    let path = "/v1/pools/office/configs/a/acknowledge-loss";
    stage
        .pool_with(
            "office",
            config("a", json!({ "minimum_available_sessions": 5, "max_servers": 10, "reusable": true })),
        )
        .await;
    let all = |list: &Value| list["servers"].as_array().filter(|servers| servers.len() == 5).cloned();
    let servers = stage.until("/v1/pools/office/servers?phase=ready", all).await;
    stage.as_role(Role::Operator, "POST", path).send().await.refused(409, "no_mass_loss");
    let error =
        stage.admin("POST", "/v1/pools/office/configs/b/acknowledge-loss").send().await.refused(404, "unknown_config");
    assert_eq!(error["message"], "pool office has no config \"b\"; there are a");
    stage.admin("POST", "/v1/pools/office/configs/a%20b/acknowledge-loss").send().await.refused(404, "unknown_config");

    for server in &servers {
        let machine = MachineRef(server["machine"].as_str().unwrap().into());
        assert!(stage.provider.with_cloud(|cloud, now| cloud.kill(now, &machine)));
    }
    let alarmed = |why: &Value| Some(why_of_a(why)).filter(|a| a["loss"] != Value::Null);
    let a = stage.until("/v1/pools/office/why", alarmed).await;
    assert_eq!(
        (&a["loss"]["missing"], &a["loss"]["of"], &a["loss"]["acknowledged"]),
        (&json!(5), &json!(5), &json!(false))
    );
    assert_eq!(a["loss"]["provider"], "cloud");
    assert!(a["loss"]["since"].as_str().unwrap().ends_with('Z'), "{a}");
    let metrics = stage.admin("GET", "/metrics").send().await.body;
    assert!(metrics.contains("kasm_autoscale_missing_machines{pool=\"office\",config=\"a\"} 5"), "{metrics}");
    let events = stage.admin("GET", "/v1/pools/office/events").send().await.expect(200);
    let alarm = events["events"].as_array().unwrap().iter().find(|event| event["value"]["event"] == "mass_loss");
    assert!(alarm.unwrap()["words"].as_str().unwrap().starts_with("ALARM: a: cloud does not show 5 of 5 machines"));
    // Two more listings change nothing.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let still = stage.admin("GET", "/v1/pools/office/servers?phase=ready").send().await.expect(200);
    assert_eq!(still["servers"].as_array().unwrap().len(), 5);

    stage.as_role(Role::Operator, "POST", path).send().await.expect(204);
    let others = |list: &Value| {
        let ready = all(list)?;
        let is_new = |server: &Value| servers.iter().all(|old| old["id"] != server["id"]);
        ready.iter().all(is_new).then_some(())
    };
    stage.until("/v1/pools/office/servers?phase=ready", others).await;
    stage.until("/v1/pools/office/why", |why| (why_of_a(why)["loss"] == Value::Null).then_some(())).await;
}

#[tokio::test]
async fn a_failed_machine_is_kept_until_an_operator_lets_it_go() {
    let stage = Stage::new().await;
    stage.admin("POST", "/v1/pools").json(&json!({ "name": "office" })).send().await.expect(201);
    // Its machines never check in.
    let failing = json!({
        "minimum_available_sessions": 1, "max_servers": 2, "require_checkin": true, "boot_deadline": "1s", "keep_failed_for": "1h",
    });
    stage.admin("POST", "/v1/pools/office/configs").json(&config("a", failing)).send().await.expect(201);
    let kept = |list: &Value| {
        let all = list["servers"].as_array()?;
        all.iter().find(|server| server["kept_until"] != Value::Null).cloned()
    };
    let server = stage.until("/v1/pools/office/servers?phase=deleting", kept).await;
    assert_eq!(server["why"], "not ready in time: the machine has not checked in");
    let why = stage.admin("GET", "/v1/pools/office/why").send().await.expect(200);
    assert_eq!(why_of_a(&why)["kept"], 1);
    let path = format!("/v1/pools/office/servers/{}", server["id"].as_str().unwrap());
    let deleted = stage.admin("DELETE", &path).send().await.expect(202);
    assert_eq!(deleted["kept_until"], Value::Null);
    for _ in 0..200 {
        if stage.admin("GET", &path).send().await.status == 404 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{path} never goes");
}

// --- two providers ---

/// A provider that takes every call and never answers.
struct Hanging;

#[async_trait]
impl VmProvider for Hanging {
    fn describe(&self) -> Capabilities {
        Capabilities {
            kind: "hanging",
            visibility_lag: Duration::ZERO,
            poll_busy: Duration::from_millis(50),
            poll_idle: Duration::from_millis(50),
            creates_in_flight_max: 50,
            call_timeout: Duration::from_secs(600),
            offering: &[],
        }
    }

    fn check(&self, _: &JsonObject, _: usize) -> Vec<Problem> {
        vec![]
    }

    async fn preflight(&self, _: &JsonObject) -> Result<Vec<Finding>, ProviderError> {
        std::future::pending().await
    }

    async fn create(&self, _: &ServerSpec) -> Result<Progress, ProviderError> {
        std::future::pending().await
    }

    async fn poll(&self, _: &OpRef) -> Result<Progress, ProviderError> {
        std::future::pending().await
    }

    async fn find(&self, _: &ServerKey) -> Result<Option<Machine>, ProviderError> {
        std::future::pending().await
    }

    async fn list(&self, _: &PoolId) -> Result<Listing, ProviderError> {
        std::future::pending().await
    }

    async fn delete(&self, _: &MachineRef) -> Result<Progress, ProviderError> {
        std::future::pending().await
    }
}

struct NoSecrets;

impl Secrets for NoSecrets {
    fn secret(&self, _: &SecretName) -> Option<SecretString> {
        None
    }
}

/// A provider that makes machines at once, as long as it has room.
pub(crate) fn cloud(capacity: u32) -> Arc<SimulatedProvider> {
    let millis = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
    let mut settings = SimulatedSettings { poll_busy: Duration::from_millis(20), ..SimulatedSettings::default() };
    settings.cloud.provision_time = millis(10, 20);
    settings.cloud.boot_time = millis(20, 40);
    settings.cloud.delete_time = millis(10, 20);
    settings.cloud.capacity = capacity;
    Arc::new(SimulatedProvider::new(settings))
}

/// A pool with the configs `first` at this provider, which promises two sessions, and `second` at a cloud that works. Each
/// provider may have one call under way at once.
async fn beside(provider: Arc<dyn VmProvider>) -> (Host, PoolHandle, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("pools.sqlite")).unwrap());
    let (host, pool) = stored(provider, store).await;
    (host, pool, folder)
}

/// The same with this store.
pub(crate) async fn stored(provider: Arc<dyn VmProvider>, store: Arc<dyn Store>) -> (Host, PoolHandle) {
    let mut providers = Registry::default();
    providers.add("failing".parse().unwrap(), provider);
    providers.add("working".parse().unwrap(), cloud(100));
    let world = World {
        clock: Clock::start(),
        store,
        providers,
        directories: DirectoryRegistry::default(),
        prober: Arc::new(NetProber::new(AddressGuard::LoopbackOnly)),
        secrets: Arc::new(NoSecrets),
        key: DeploymentKey::new([KEY_BYTE; 32]),
        metrics: Metrics::default(),
        calls: CallLimits { calls: 1, grace: Duration::from_millis(10), ..CallLimits::default() },
    };
    let spec = |fields: Value| ConfigSpec::from_json(&object(fields)).unwrap();
    let first = json!({ "name": "first", "provider": "failing", "minimum_available_sessions": 2, "priority": 1 });
    let second = json!({ "name": "second", "provider": "working", "minimum_available_sessions": 1, "priority": 2 });
    let declared = DeclaredPool {
        name: "office".parse().unwrap(),
        settings: object(json!({ "name": "office" })),
        configs: vec![spec(first), spec(second)],
        config_places: vec![],
    };
    let host = Host::start(world, &[declared]).await.unwrap();
    let pool = host.pool("office").unwrap();
    (host, pool)
}

/// Looks until the configs are as wished.
pub(crate) async fn until(
    pool: &PoolHandle,
    wished: impl Fn(&ConfigReport, &ConfigReport) -> bool,
) -> Vec<ConfigReport> {
    let mut last = vec![];
    for _ in 0..400 {
        last = pool.look(|pool| pool.report().configs).await.unwrap();
        if wished(&last[0], &last[1]) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it never was as wished; last: {last:#?}");
}

#[tokio::test]
async fn a_provider_that_hangs_takes_no_turns_from_another_one() {
    let (host, pool, _folder) = beside(Arc::new(Hanging)).await;
    let configs = until(&pool, |_, second| second.supply.free >= 1).await;
    assert_eq!((configs[0].servers.creating, configs[0].supply.free), (2, 0), "{configs:?}");
    host.stop().await;
}

#[tokio::test]
async fn when_one_cloud_is_dry_the_other_one_takes_over() {
    let (host, pool, _folder) = beside(cloud(0)).await;
    let configs = until(&pool, |_, second| second.supply.free == 3).await;
    let (first, second) = ("first".parse().unwrap(), "second".parse().unwrap());
    assert_eq!(configs[0].fallback, [Fallback::CoveredBy { config: second, sessions: 2 }]);
    assert_eq!(configs[1].fallback, [Fallback::CoveringFor { config: first, sessions: 2 }]);
    let text = host.world().metrics.text(&[pool.look(|pool| pool.report()).await.unwrap()]);
    assert!(text.contains("kasm_autoscale_covered_sessions{pool=\"office\",config=\"first\"} 2"), "{text}");
    assert!(
        text.contains("kasm_autoscale_backoff_failures{pool=\"office\",config=\"first\",kind=\"no_capacity\"} 1"),
        "{text}"
    );
    host.stop().await;
}
