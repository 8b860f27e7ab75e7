//! Renewal while it runs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use kasm_daemon::api::Limits;

use crate::authority::{Authority, Identity, ending, put};
use crate::peer::{PATIENCE, Peer, trusting};
use crate::stage::{Stage, settings};

const TAKEN: &str = "kasm_autoscale_certificate_reloads_total{outcome=\"taken\"}";
const REFUSALS: &str = "kasm_autoscale_certificate_reloads_total{outcome=\"refused\"}";
const REFUSED: &str = "kasm_autoscale_certificate_refused{certificate=\"api\"}";
const EXPIRES: &str = "kasm_autoscale_certificate_expires_seconds{certificate=\"api\"}";
/// In 2096.
const FAR: u64 = 4_000_000_000;

/// Waits until new connections are shown this certificate.
async fn until_shown(stage: &Stage, authority: &Authority, identity: &Identity) {
    let config = Arc::new(trusting(authority, None));
    let shown = async {
        // What is shown before may be one that is not taken.
        while !Peer::connect(stage.address, &config).await.is_ok_and(|peer| peer.shown() == identity.der) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, shown).await.expect("the new certificate is shown");
}

#[tokio::test]
async fn s_19_new_connections_see_the_new_certificate_and_old_ones_go_on() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let first = ours.issue(ending(FAR));
    first.put(folder.path());
    let stage = Stage::new(settings(folder.path()), Limits::default()).await;
    assert_eq!(stage.metric(&ours, EXPIRES).await, Some(4e9));
    let config = Arc::new(trusting(&ours, None));
    let mut kept = Peer::connect(stage.address, &config).await.unwrap();
    assert_eq!((kept.shown(), kept.get("/healthz").await.unwrap().status), (first.der.clone(), 200));
    for ends in [FAR + 1, FAR + 2] {
        let next = ours.issue(ending(ends));
        next.put(folder.path());
        until_shown(&stage, &ours, &next).await;
        assert_eq!(kept.get("/healthz").await.unwrap().status, 200);
    }
    assert_eq!(stage.metric(&ours, EXPIRES).await, Some(4_000_000_002.0));
    assert_eq!(stage.metric(&ours, TAKEN).await, Some(2.0));
    assert_eq!(stage.metric(&ours, REFUSED).await, Some(0.0));
}

/// As Kubernetes exchanges a secret's files: each a link through a link to a folder, and that one is turned in one go.
#[tokio::test]
async fn s_19_links_that_are_turned_count_as_what_they_lead_to() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let path = folder.path();
    let turn = |number: u64| -> Identity {
        let (name, identity) = (format!("..{number}"), ours.server(number));
        fs::create_dir(path.join(&name)).unwrap();
        identity.put(&path.join(&name));
        symlink(&name, path.join("..data_tmp")).unwrap();
        fs::rename(path.join("..data_tmp"), path.join("..data")).unwrap();
        identity
    };
    turn(1);
    for name in ["api.pem", "api.key"] {
        symlink(Path::new("..data").join(name), path.join(name)).unwrap();
    }
    let stage = Stage::new(settings(path), Limits::default()).await;
    for number in 2..5 {
        let next = turn(number);
        until_shown(&stage, &ours, &next).await;
    }
}

#[tokio::test]
async fn s_19_what_is_no_good_is_refused_and_the_old_certificate_goes_on() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let path = folder.path();
    let first = ours.server(1);
    first.put(path);
    let stage = Stage::new(settings(path), Limits::default()).await;
    let config = Arc::new(trusting(&ours, None));
    let mut good = ours.renew(&first, |_| {});
    put(path, "api.pem", &good.pem, 0o644);
    until_shown(&stage, &ours, &good).await;
    let spoil: [(&str, &dyn Fn()); 7] = [
        ("another key", &|| put(path, "api.key", &ours.server(9).key.serialize_pem(), 0o600)),
        ("another certificate", &|| put(path, "api.pem", &ours.server(9).pem, 0o644)),
        ("no PEM", &|| put(path, "api.pem", "-----BEGIN CERTIFICATE-----\n?", 0o644)),
        ("half", &|| put(path, "api.pem", &ours.server(9).pem[..300], 0o644)),
        ("no file", &|| fs::remove_file(path.join("api.pem")).unwrap()),
        ("ended", &|| put(path, "api.pem", &ours.renew(&first, ending(1_700_000_000)).pem, 0o644)),
        ("a key that others can read", &|| put(path, "api.key", &first.key.serialize_pem(), 0o644)),
    ];
    for (number, (name, spoil)) in spoil.iter().enumerate() {
        let refusals = |count: usize| f64::from(u32::try_from(count).unwrap());
        spoil();
        stage.until_metric(&ours, REFUSALS, refusals(number + 1)).await;
        assert_eq!(stage.metric(&ours, REFUSED).await, Some(1.0), "{name}");
        let shown = Peer::connect(stage.address, &config).await.unwrap().shown();
        assert_eq!(shown, good.der, "{name}: the old one goes on");
        // It is looked at many times more, and refused once.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert_eq!(stage.metric(&ours, REFUSALS).await, Some(refusals(number + 1)), "{name}");
        // Mended, with another one or with the old one; one file at a time, so that no pair on the way is a bad one.
        if number % 2 == 0 {
            good = ours.renew(&first, |_| {});
        }
        put(path, "api.key", &good.key.serialize_pem(), 0o600);
        put(path, "api.pem", &good.pem, 0o644);
        stage.until_metric(&ours, REFUSED, 0.0).await;
        until_shown(&stage, &ours, &good).await;
    }
}

/// Pools are looked after whether clients take the certificate or not.
#[tokio::test]
async fn s_19_a_certificate_that_has_expired_keeps_nothing_from_starting() {
    let (folder, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
    let path = folder.path();
    let old = ours.issue(ending(1_700_000_000));
    old.put(path);
    let stage = Stage::new(settings(path), Limits::default()).await;
    let config = Arc::new(trusting(&ours, None));
    assert!(Peer::connect(stage.address, &config).await.is_err(), "no client takes it");
    let good = ours.renew(&old, |_| {});
    put(path, "api.pem", &good.pem, 0o644);
    until_shown(&stage, &ours, &good).await;
}
