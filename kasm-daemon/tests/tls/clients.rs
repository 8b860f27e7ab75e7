//! Certificates of clients.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kasm_daemon::api::{CallerLimits, Limits, Rate};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind};

use crate::authority::{Authority, ending, put};
use crate::peer::{Peer, get, speaking, trusting};
use crate::stage::{Stage, mutual};

struct Cast {
    ours: Authority,
    clients: Authority,
    stage: Stage,
    _folder: tempfile::TempDir,
}

async fn cast(checkins_without: bool) -> Cast {
    cast_within(checkins_without, Limits::default()).await
}

async fn cast_within(checkins_without: bool, limits: Limits) -> Cast {
    let (folder, ours, clients) = (tempfile::tempdir().unwrap(), Authority::new("ours"), Authority::new("clients"));
    ours.server(1).put(folder.path());
    put(folder.path(), "clients.pem", &clients.pem, 0o644);
    let stage = Stage::new(mutual(folder.path(), checkins_without), limits).await;
    Cast { ours, clients, stage, _folder: folder }
}

async fn is_taken(stage: &Stage, config: ClientConfig) -> bool {
    get(stage.address, config, "/healthz").await.is_ok_and(|reply| reply.status == 200)
}

#[tokio::test]
async fn s_19_without_a_certificate_of_the_client_ca_nobody_gets_in() {
    let Cast { ours, clients, stage, _folder } = cast(false).await;
    let good = clients.client(|_| {});
    // One of the same name, but another key; our own, which is no authority for clients; and those that are not good.
    let stranger = Authority::new("clients").client(|_| {});
    let own = ours.client(|_| {});
    let ended = clients.client(ending(1_700_000_000));
    let server = clients.client(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    for version in [&TLS12, &TLS13] {
        let with = |identity| speaking(&[version], &ours, identity);
        assert!(is_taken(&stage, with(Some(&good))).await, "{version:?}");
        assert!(!is_taken(&stage, with(None)).await, "{version:?}: none");
        for (name, bad) in [("stranger", &stranger), ("own", &own), ("ended", &ended), ("server", &server)] {
            assert!(!is_taken(&stage, with(Some(bad))).await, "{version:?}: {name}");
        }
    }
    // The certificate is no token.
    get(stage.address, trusting(&ours, Some(&good)), "/v1/pools").await.unwrap().refused(401, "no_token");
}

#[tokio::test]
async fn s_19_machines_may_check_in_without_one_and_do_nothing_else() {
    let Cast { ours, clients, stage, _folder } = cast(true).await;
    let mut machine = Peer::connect(stage.address, &Arc::new(trusting(&ours, None))).await.unwrap();
    assert_eq!(machine.get("/healthz").await.unwrap().status, 200);
    // As far as its token, which is none.
    let checked = machine.ask("POST", "/api/set_server_status?token=x", "").await.unwrap();
    assert_eq!(checked.status, 401, "{checked:?}");
    for (method, path) in [("GET", "/v1/pools"), ("GET", "/openapi.json"), ("GET", "/metrics"), ("POST", "/v1/login")] {
        let reply = machine.ask(method, path, &stage.admin).await.unwrap();
        reply.refused(403, "no_client_certificate");
    }
    let good = clients.client(|_| {});
    let mut portal = Peer::connect(stage.address, &Arc::new(trusting(&ours, Some(&good)))).await.unwrap();
    assert_eq!(portal.ask("GET", "/v1/pools", &stage.admin).await.unwrap().status, 200);
    portal.get("/v1/pools").await.unwrap().refused(401, "no_token");
    // A bad one is worse than none.
    let stranger = Authority::new("clients").client(|_| {});
    assert!(!is_taken(&stage, trusting(&ours, Some(&stranger))).await);
}

/// Their tokens are not looked at, so they are not told apart.
#[tokio::test]
async fn s_16_whoever_lacks_a_certificate_counts_for_his_address() {
    let address = Rate { every: Duration::from_secs(600), burst: 5 };
    let callers = CallerLimits { address, ..CallerLimits::default() };
    let Cast { ours, clients, stage, _folder } = cast_within(true, Limits { callers, ..Limits::default() }).await;
    let mut stranger = Peer::connect(stage.address, &Arc::new(trusting(&ours, None))).await.unwrap();
    for _ in 0..5 {
        let reply = stranger.ask("GET", "/v1/pools", &stage.admin).await.unwrap();
        reply.refused(403, "no_client_certificate");
    }
    stranger.ask("GET", "/v1/pools", &stage.admin).await.unwrap().refused(429, "rate_limited");
    // From the same address, with a certificate and a token of its own.
    let good = clients.client(|_| {});
    let mut portal = Peer::connect(stage.address, &Arc::new(trusting(&ours, Some(&good)))).await.unwrap();
    assert_eq!(portal.ask("GET", "/v1/pools", &stage.admin).await.unwrap().status, 200);
}

/// A session that is taken up again would not show its certificate, which may be worth nothing by then.
#[tokio::test]
async fn s_19_certificates_are_asked_for_with_every_connection() {
    async fn second(stage: &Stage, config: ClientConfig) -> HandshakeKind {
        let config = Arc::new(config);
        let mut kind = HandshakeKind::Full;
        for _ in 0..2 {
            let mut peer = Peer::connect(stage.address, &config).await.unwrap();
            // Whatever a session is taken up again with comes before the answer.
            assert_eq!(peer.get("/healthz").await.unwrap().status, 200);
            kind = peer.0.get_ref().1.handshake_kind().unwrap();
        }
        kind
    }
    let cast = cast(false).await;
    let good = cast.clients.client(|_| {});
    let plain = tempfile::tempdir().unwrap();
    cast.ours.server(2).put(plain.path());
    let open = Stage::new(crate::stage::settings(plain.path()), Limits::default()).await;
    for version in [&TLS12, &TLS13] {
        assert_eq!(second(&cast.stage, speaking(&[version], &cast.ours, Some(&good))).await, HandshakeKind::Full);
        let kind = second(&open, speaking(&[version], &cast.ours, None)).await;
        assert_eq!(kind, HandshakeKind::Resumed, "where nothing is asked for, that is cheaper");
    }
}

#[tokio::test]
async fn s_19_a_new_client_ca_counts_from_the_next_connection_on() {
    let Cast { ours, clients, stage, _folder: folder } = cast(false).await;
    let (old, next) = (clients.client(|_| {}), Authority::new("next"));
    let new = next.client(|_| {});
    let mut kept = Peer::connect(stage.address, &Arc::new(trusting(&ours, Some(&old)))).await.unwrap();
    assert_eq!(kept.get("/healthz").await.unwrap().status, 200);
    assert!(!is_taken(&stage, trusting(&ours, Some(&new))).await);
    let until = async |identity, wanted| {
        while is_taken(&stage, trusting(&ours, Some(identity))).await != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let swap = |content: &str| put(Path::new(folder.path()), "clients.pem", content, 0o644);
    // Both, then the new one alone.
    swap(&format!("{}{}", clients.pem, next.pem));
    tokio::time::timeout(crate::peer::PATIENCE, until(&new, true)).await.expect("the new one is taken");
    assert!(is_taken(&stage, trusting(&ours, Some(&old))).await);
    swap(&next.pem);
    tokio::time::timeout(crate::peer::PATIENCE, until(&old, false)).await.expect("the old one is taken no more");
    assert!(is_taken(&stage, trusting(&ours, Some(&new))).await);
    assert_eq!(kept.get("/healthz").await.unwrap().status, 200, "what there is goes on");
}
