//! A store that cannot save any more, and what the daemon does meanwhile: little, and nothing in a hurry.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kasm_autoscale_core::input::Fact;
use kasm_autoscale_core::session::SessionRequest;
use kasm_daemon::driver::AskError;
use kasm_daemon::store::SqliteStore;

use crate::failures::{cloud, stored, until};
use crate::refusing::Refusing;

#[tokio::test]
async fn a_store_that_refuses_every_save_is_not_tried_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let full = Arc::new(Refusing::new(SqliteStore::open(&folder.path().join("pools.sqlite")).unwrap()));
    let (host, pool) = stored(cloud(100), full.clone()).await;
    until(&pool, |first, second| first.supply.free >= 2 && second.supply.free >= 1).await;

    full.steps.store(true, Ordering::SeqCst);
    let request = || Fact::SessionRequested(SessionRequest { user: "ann".parse().unwrap(), key: None, zone: None });
    // Users go on asking all the time.
    let mut asked = 0;
    let asking = async {
        loop {
            assert_eq!(pool.ask(request()).await, Err(AskError::NotSaved));
            asked += 1;
        }
    };
    let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(1500), asking).await;
    // Each try but the first comes after a pause, of a second, two seconds and so on.
    let (refused, loaded) = (full.steps_refused.load(Ordering::SeqCst), full.loaded.load(Ordering::SeqCst));
    assert!(refused >= asked && (2..=4).contains(&refused), "{asked} asked, {refused} saves refused");
    assert!(loaded <= refused + 2, "{refused} saves refused, {loaded} times read");

    full.steps.store(false, Ordering::SeqCst);
    assert!(pool.ask(request()).await.is_ok(), "and all is as before when it can save again");
    host.stop().await;
}
