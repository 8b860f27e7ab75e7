//! The simulated provider keeps the port's contract, and its machines answer on loopback while they run and no longer.
#![cfg(feature = "simulated")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kasm_autoscale_core::id::{ConfigId, DeploymentId, PoolId, ServerId, ServerKey};
use kasm_autoscale_core::ports::{
    Certainty, ErrorKind, Machine, MachineRef, MachineState, Marker, OpRef, Progress, ServerSpec, VmProvider,
};
use kasm_autoscale_core::testing::cloud::{CloudSettings, Fault, FaultRates, user_data_hash};
use kasm_autoscale_core::time::Timestamp;
use kasm_providers::simulated::{Clock, MACHINES_MAX, SimulatedProvider, SimulatedSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

const POOL: PoolId = PoolId::from_bytes([7; 16]);
const SECOND: Duration = Duration::from_secs(1);

/// As `mstsc` opens a connection: TPKT, X.224 Connection Request, a cookie, and `RDP_NEG_REQ` asking for TLS or CredSSP.
const CONNECTION_REQUEST: &[u8] =
    b"\x03\x00\x00\x2a\x25\xe0\x00\x00\x00\x00\x00Cookie: mstshash=kasm\r\n\x01\x00\x08\x00\x03\x00\x00\x00";

fn key(serial: u64) -> ServerKey {
    ServerKey { pool: POOL, server: ServerId::new(serial) }
}

fn spec(serial: u64) -> ServerSpec {
    let server = key(serial);
    ServerSpec {
        server,
        marker: Marker {
            deployment: DeploymentId::from_bytes([1; 16]),
            pool: POOL,
            config: ConfigId::new(1),
            server: server.uuid(),
        },
        name: server.machine_name(),
        token: server.uuid(),
        machine: serde_json::Map::new(),
        user_data: Some(format!("start {serial}").into()),
    }
}

fn exactly(millis: u64) -> std::ops::RangeInclusive<Duration> {
    Duration::from_millis(millis)..=Duration::from_millis(millis)
}

fn settings(provision: u64, boot: u64, delete: u64) -> SimulatedSettings {
    let cloud = CloudSettings {
        provision_time: exactly(provision),
        boot_time: exactly(boot),
        delete_time: exactly(delete),
        ..CloudSettings::default()
    };
    SimulatedSettings { cloud, ..SimulatedSettings::default() }
}

/// A clock that stands until it is moved: by how many milliseconds it is.
fn manual() -> (Arc<AtomicU64>, Clock) {
    let millis = Arc::new(AtomicU64::new(0));
    let moved = Arc::clone(&millis);
    (millis, Arc::new(move || Timestamp::from_millis(1_700_000_000_000 + moved.load(Ordering::SeqCst))))
}

async fn found(provider: &SimulatedProvider, serial: u64) -> Machine {
    provider.find(&key(serial)).await.unwrap().expect("a machine")
}

fn port(machine: &Machine) -> u16 {
    let address = machine.address.as_ref().expect("an address");
    assert_eq!(address.host, "127.0.0.1");
    address.port.expect("a port")
}

async fn ask(port: u16, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(request).await?;
    let mut answer = vec![0; 64];
    let read = timeout(3 * SECOND, stream.read(&mut answer)).await??;
    answer.truncate(read);
    Ok(answer)
}

/// Waits until nobody listens at a port any more: tasks end soon after they are told to, not at once.
async fn closed(port: u16) -> bool {
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            return true;
        }
        sleep(Duration::from_millis(20)).await;
    }
    false
}

fn is_rdp_answer(answer: &[u8]) -> bool {
    answer == [3, 0, 0, 19, 14, 0xd0, 0, 0, 0x12, 0x34, 0, 2, 0, 8, 0, 1, 0, 0, 0]
}

/// The whole life on the real clock, driven by nothing but time.
#[tokio::test]
async fn a_machine_boots_answers_rdp_and_its_port_closes_when_it_is_deleted() {
    let provider = SimulatedProvider::new(settings(100, 300, 100));
    let mut booted = provider.booted();
    let Progress::Pending { machine: Some(machine), op: None } = provider.create(&spec(1)).await.unwrap() else {
        panic!()
    };
    assert_eq!(found(&provider, 1).await.address, None, "no address before it is powered on");

    let event = timeout(3 * SECOND, booted.recv()).await.expect("a boot within 3 s").unwrap();
    let expected = (key(1), machine.clone(), key(1).machine_name());
    assert_eq!((event.server, event.machine, event.name), expected);
    let carried = ServerSpec { user_data: event.user_data, ..spec(1) };
    assert_eq!(user_data_hash(&carried), user_data_hash(&spec(1)));

    let shown = found(&provider, 1).await;
    assert_eq!(shown.state, MachineState::Running);
    let port = port(&shown);
    let answer = ask(port, CONNECTION_REQUEST).await.unwrap();
    assert!(is_rdp_answer(&answer), "{answer:?}");
    assert_eq!(provider.list(&POOL).await.unwrap().machines, [shown]);

    // A connection that is open goes with the machine.
    let mut open = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    provider.delete(&machine).await.unwrap();
    assert!(closed(port).await);
    let mut rest = Vec::new();
    assert!(timeout(3 * SECOND, open.read_to_end(&mut rest)).await.is_ok(), "the connection is still open");
    sleep(Duration::from_millis(150)).await;
    assert_eq!(provider.find(&key(1)).await, Ok(None));
    assert_eq!(provider.delete(&machine).await, Ok(Progress::Done { machine: Some(machine) }));
}

/// Until the boot is over a client is accepted and hears nothing: a port that merely accepts is not a ready one.
#[tokio::test]
async fn a_machine_that_is_powered_on_and_not_booted_accepts_and_is_silent() {
    let (millis, clock) = manual();
    let provider = SimulatedProvider::with_clock(settings(1000, 1000, 1000), clock);
    provider.create(&spec(1)).await.unwrap();
    millis.store(1000, Ordering::SeqCst);
    let port = port(&found(&provider, 1).await);
    let mut early = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    early.write_all(CONNECTION_REQUEST).await.unwrap();
    let mut answer = [0; 19];
    assert!(timeout(Duration::from_millis(500), early.read(&mut answer)).await.is_err());

    millis.store(2000, Ordering::SeqCst);
    assert_eq!(self::port(&found(&provider, 1).await), port, "the port does not change");
    timeout(3 * SECOND, early.read_exact(&mut answer)).await.expect("an answer").unwrap();
    assert!(is_rdp_answer(&answer));
}

#[tokio::test]
async fn ssh_and_vnc_are_greeted_and_nonsense_is_not() {
    let provider = SimulatedProvider::new(settings(0, 0, 0));
    provider.create(&spec(1)).await.unwrap();
    let port = port(&found(&provider, 1).await);
    assert_eq!(ask(port, b"").await.unwrap(), b"RFB 003.008\n");
    assert_eq!(ask(port, b"SSH-2.0-test\r\n").await.unwrap(), b"SSH-2.0-simulated\r\n");
    assert!(is_rdp_answer(&ask(port, CONNECTION_REQUEST).await.unwrap()));
    // Not a TPKT; a TPKT without a Connection Request; lengths that are too short, too long, and not those of the inside.
    let wrong: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x03\x00\x00\x0b\x06\xd0\x00\x00\x00\x00\x00",
        b"\x03\x00\x00\x04",
        b"\x03\x00\xff\xff\x06\xe0\x00\x00\x00\x00\x00",
        b"\x03\x00\x00\x0b\x07\xe0\x00\x00\x00\x00\x00",
    ];
    for request in wrong {
        // Closed or reset, as the bytes that were not read will have it, but at once and without a word.
        match ask(port, request).await {
            Ok(answer) => assert_eq!(answer, b"", "{request:?}"),
            Err(error) => assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{request:?}"),
        }
    }
}

#[tokio::test]
async fn stopping_and_killing_by_hand_closes_the_port() {
    let provider = SimulatedProvider::new(settings(0, 0, 0));
    for (serial, state) in [(1, Some(MachineState::Stopped)), (2, None)] {
        provider.create(&spec(serial)).await.unwrap();
        let machine = found(&provider, serial).await;
        let port = port(&machine);
        assert!(ask(port, CONNECTION_REQUEST).await.is_ok());
        let act = |stop: bool| {
            provider.with_cloud(|cloud, now| {
                if stop { cloud.stop(now, &machine.reference) } else { cloud.kill(now, &machine.reference) }
            })
        };
        assert!(act(state.is_some()));
        assert!(closed(port).await);
        let after = provider.find(&key(serial)).await.unwrap();
        assert_eq!(after.as_ref().map(|machine| &machine.state), state.as_ref());
        assert_eq!(after.and_then(|machine| machine.address), None);
    }
}

/// Nothing outlives the provider: no task, no listener, no event.
#[tokio::test]
async fn dropping_the_provider_ends_its_tasks_and_listeners() {
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let provider = SimulatedProvider::new(settings(0, 50, 0));
    let mut booted = provider.booted();
    let mut ports = Vec::new();
    for serial in 1..=5 {
        provider.create(&spec(serial)).await.unwrap();
        ports.push(port(&found(&provider, serial).await));
    }
    for _ in 0..5 {
        timeout(3 * SECOND, booted.recv()).await.expect("a boot").unwrap();
    }
    let open = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let during = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(during >= before + 7, "the driver, five listeners, one connection: {during}");

    drop(provider);
    for port in ports {
        assert!(closed(port).await);
    }
    drop(open);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
    assert!(timeout(SECOND, booted.recv()).await.expect("the end of the channel").is_none());
}

#[tokio::test]
async fn a_lost_reply_is_an_error_of_unknown_effect_and_the_truth_shows_which() {
    for (fault, made) in [(Fault::LostBeforeEffect, 0), (Fault::LostAfterEffect, 1)] {
        let (millis, clock) = manual();
        let mut settings = settings(0, 100, 0);
        settings.cloud.faults = FaultRates::default().with(fault, 1_000_000);
        let provider = SimulatedProvider::with_clock(settings, clock);
        let mut booted = provider.booted();
        let error = provider.create(&spec(1)).await.unwrap_err();
        assert_eq!((error.kind, error.certainty), (ErrorKind::Transient, Certainty::Unknown));
        let live = provider.with_cloud(|cloud, now| cloud.live_count(now));
        assert_eq!(live, made, "{}", fault.as_str());
        // A machine whose birth nobody heard of boots all the same.
        millis.store(100, Ordering::SeqCst);
        provider.with_cloud(|_, _| ());
        assert_eq!(booted.try_recv().is_ok(), made == 1, "{}", fault.as_str());
    }
}

#[tokio::test]
async fn a_boot_is_told_once_and_not_at_all_for_a_machine_deleted_before() {
    let (millis, clock) = manual();
    let provider = SimulatedProvider::with_clock(settings(10, 10, 10), clock);
    let mut booted = provider.booted();
    provider.create(&spec(1)).await.unwrap();
    provider.create(&spec(2)).await.unwrap();
    provider.delete(&found(&provider, 2).await.reference).await.unwrap();
    millis.store(20, Ordering::SeqCst);
    for _ in 0..3 {
        provider.create(&spec(1)).await.unwrap();
        provider.list(&POOL).await.unwrap();
    }
    assert_eq!(booted.try_recv().unwrap().server, key(1));
    assert!(booted.try_recv().is_err());
}

#[tokio::test]
async fn the_calls_of_the_port_reach_the_cloud() {
    let mut settings = settings(1000, 0, 0);
    settings.cloud.operations = true;
    settings.cloud.capacity = 1;
    let (millis, clock) = manual();
    let provider = SimulatedProvider::with_clock(settings, clock);
    let Progress::Pending { machine: Some(machine), op: Some(op) } = provider.create(&spec(1)).await.unwrap() else {
        panic!()
    };
    assert!(matches!(provider.poll(&op).await, Ok(Progress::Pending { .. })));
    millis.store(1000, Ordering::SeqCst);
    assert_eq!(provider.poll(&op).await, Ok(Progress::Done { machine: Some(machine) }));
    assert_eq!(provider.poll(&OpRef("unknown".into())).await, Ok(Progress::Pending { machine: None, op: None }));
    assert_eq!(provider.create(&spec(2)).await.unwrap_err().kind, ErrorKind::NoCapacity);
    let unknown = MachineRef("i-0".into());
    assert_eq!(provider.delete(&unknown).await, Ok(Progress::Done { machine: Some(unknown) }));
    assert!(provider.list(&PoolId::from_bytes([9; 16])).await.unwrap().machines.is_empty());
}

/// Long after its end a machine is forgotten, so a daemon that runs for months does not grow.
#[tokio::test]
async fn ended_machines_are_forgotten_after_an_hour() {
    let (millis, clock) = manual();
    let provider = SimulatedProvider::with_clock(settings(0, 0, 0), clock);
    provider.create(&spec(1)).await.unwrap();
    provider.delete(&found(&provider, 1).await.reference).await.unwrap();
    let remembered = || provider.with_cloud(|cloud, _| cloud.machines().count());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(remembered(), 1);
    millis.store(3_600_001, Ordering::SeqCst);
    remembered();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(remembered(), 0);
}

#[test]
fn only_a_size_is_a_machine_setting() {
    let provider = SimulatedProvider::new(SimulatedSettings::default());
    let check = |json: &str| {
        provider
            .check(&serde_json::from_str(json).unwrap(), 1_000_000)
            .into_iter()
            .map(|problem| problem.path)
            .collect::<Vec<_>>()
    };
    assert!(check("{}").is_empty() && check(r#"{"size": "large"}"#).is_empty());
    assert_eq!(check(r#"{"size": 3, "sice": "large"}"#), ["size", "sice"]);
}

#[test]
fn it_describes_itself_by_its_settings() {
    let table = r#"{"visibility_lag_min": "1s", "visibility_lag_max": "3s", "poll_busy": "100ms", "poll_idle": 2,
        "creates_in_flight_max": 3, "call_timeout": "9s", "seed": 4, "faults": {"boot_stuck": 10}}"#;
    let settings = SimulatedSettings::from_json(&serde_json::from_str(table).unwrap()).unwrap();
    assert_eq!((settings.seed, settings.cloud.faults.rate(Fault::BootStuck)), (4, 10));
    assert_eq!(*settings.cloud.boot_time.end(), 4 * SECOND, "what is not given is as it was");
    let capabilities = SimulatedProvider::new(settings).describe();
    assert_eq!((capabilities.kind, capabilities.creates_in_flight_max), ("simulated", 3));
    let times =
        [capabilities.visibility_lag, capabilities.poll_busy, capabilities.poll_idle, capabilities.call_timeout];
    assert_eq!(times, [3 * SECOND, SECOND / 10, 2 * SECOND, 9 * SECOND]);
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let problems = |json: &str| {
        let problems = SimulatedSettings::from_json(&serde_json::from_str(json).unwrap()).expect_err("problems");
        problems.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    assert_eq!(problems(&format!(r#"{{"capacity": {}}}"#, MACHINES_MAX + 1)), ["capacity"]);
    assert_eq!(
        problems(r#"{"poll_busy": "1ms", "poll_idel": 1, "faults": {"boot": 1}}"#),
        ["faults.boot", "poll_busy", "poll_idel"].map(String::from)
    );
    assert_eq!(SimulatedSettings::from_json(&serde_json::Map::new()), Ok(SimulatedSettings::default()));
}
