use std::path::Path;

use super::*;
use crate::store::SqliteStore;

const NOW: Timestamp = Timestamp::from_secs(1000);

/// A token of this role, as a config file would declare it.
fn declared(name: &str, role: Role) -> (String, TokenEntry) {
    let new = generate_token(name).unwrap();
    let entry = TokenEntry::from_sha256(name, role, &new.sha256).unwrap();
    (new.token.expose_secret().to_owned(), entry)
}

async fn loaded(folder: &Path, entries: &[TokenEntry]) -> ApiTokens {
    // The thread of a store that was dropped closes its file a moment later.
    for _ in 0..200 {
        if let Ok(store) = SqliteStore::open(&folder.join("pools.sqlite")) {
            return ApiTokens::load(Arc::new(store), Clock::start(), Tokens::new(entries.to_vec())).await.unwrap();
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the store is never closed");
}

fn known(tokens: &ApiTokens, id: &str) -> Arc<Known> {
    tokens.all().into_iter().find(|known| known.id() == id).unwrap()
}

#[tokio::test]
async fn s_12_a_token_is_accepted_until_it_expires() {
    let folder = tempfile::tempdir().unwrap();
    let (token, entry) = declared("a", Role::Viewer);
    let tokens = loaded(folder.path(), &[TokenEntry { expires_at: Some(NOW), ..entry }]).await;
    assert!(tokens.holder_at(&token, Timestamp::from_millis(999_999)).is_some());
    assert!(tokens.holder_at(&token, NOW).is_none());
    assert!(tokens.holder_at(&token, Timestamp::from_secs(u64::MAX / 1000)).is_none());
}

#[tokio::test]
async fn a_token_is_accepted_under_its_own_hash_and_no_other_is() {
    let folder = tempfile::tempdir().unwrap();
    let (token, entry) = declared("ci.1_x", Role::Broker);
    assert_eq!(token.len(), "kasm_ci.1_x_".len() + 43);
    let other = TokenEntry { name: "other".into(), role: Role::Admin, sha256: [7; 32], expires_at: None };
    let tokens = loaded(folder.path(), &[other, entry.clone()]).await;
    let holder = |token: &str| tokens.holder_at(token, NOW).map(|known| known.caller());
    assert_eq!(holder(&token), Some(Caller { name: "ci.1_x".into(), role: Role::Broker }));
    assert_eq!(holder(&token[..token.len() - 1]), None);
    assert_eq!(holder(&format!("{token}x")), None);
    assert_eq!(holder(&to_hex(&entry.sha256)), None, "the hash is not the token");
    assert_eq!(holder(""), None);
    assert_ne!(token, generate_token("ci.1_x").unwrap().token.expose_secret());
}

#[tokio::test]
async fn s_12_what_is_revoked_stays_revoked_whatever_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let ((first, one), (second, other)) = (declared("one", Role::Admin), declared("other", Role::Admin));
    let entries = [one, other];
    let tokens = loaded(folder.path(), &entries).await;
    let id = tokens.holder(&first).unwrap().id();
    let revoked = known(&tokens, &id);
    tokens.revoke(&id).await.unwrap();
    assert!(tokens.holder(&first).is_none() && revoked.ended().is_cancelled());
    let at = revoked.revoked_at();
    tokens.revoke(&id).await.unwrap();
    assert!(at.is_some() && revoked.revoked_at() == at, "the first time counts");
    let last = tokens.holder(&second).unwrap().id();
    assert!(matches!(tokens.revoke(&last).await, Err(TokensError::LastAdmin)));
    assert!(matches!(tokens.revoke("0123456789ab").await, Err(TokensError::Unknown(_))));
    drop(tokens);

    for is_in_file in [true, false, true] {
        let tokens = loaded(folder.path(), if is_in_file { &entries } else { &entries[1..] }).await;
        assert!(tokens.holder(&first).is_none() && tokens.holder(&second).is_some());
        let stays = known(&tokens, &id);
        // Kept in whole milliseconds.
        let millis = |at: Option<Timestamp>| at.map(Timestamp::as_millis);
        assert_eq!((millis(stays.revoked_at()), stays.source()), (millis(at), Source::File));
        assert!(stays.ended().is_cancelled());
    }
}

#[tokio::test]
async fn s_12_last_use_survives_and_never_undoes_a_revocation() {
    let folder = tempfile::tempdir().unwrap();
    let (first, one) = declared("one", Role::Viewer);
    let (admin, two) = declared("two", Role::Admin);
    let entries = [one, two];
    let tokens = loaded(folder.path(), &entries).await;
    let id = tokens.all()[0].id();
    assert_eq!(known(&tokens, &id).last_used_at(), None);
    let used = tokens.holder(&first).unwrap().last_used_at();
    assert!(used.is_some());
    tokens.write_uses().await.unwrap();
    // A copy from before the revocation, written after it.
    let stale = known(&tokens, &id).stored();
    tokens.revoke(&id).await.unwrap();
    tokens.store.put_tokens(vec![stale]).await.unwrap();
    tokens.holder(&admin).unwrap();
    tokens.write_uses().await.unwrap();
    let kept = tokens.store.tokens().await.unwrap();
    assert_eq!(kept.len(), 2);
    drop(tokens);
    let tokens = loaded(folder.path(), &entries).await;
    let again = known(&tokens, &id);
    assert!(again.revoked_at().is_some() && again.last_used_at() == used);
    drop(tokens);
    // What is no longer in the file and was not revoked is forgotten.
    let tokens = loaded(folder.path(), &[]).await;
    assert_eq!(tokens.all().iter().map(|known| known.id()).collect::<Vec<_>>(), [id]);
}

#[tokio::test]
async fn s_12_tokens_made_here_last_and_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let (_, admin) = declared("admin", Role::Admin);
    let tokens = loaded(folder.path(), std::slice::from_ref(&admin)).await;
    let (token, made) = tokens.make("ci", Role::Broker, None).await.unwrap();
    let held = tokens.holder(token.expose_secret()).unwrap();
    assert_eq!((held.caller(), held.source()), (Caller { name: "ci".into(), role: Role::Broker }, Source::Api));
    assert!(matches!(tokens.make("a b", Role::Broker, None).await, Err(TokensError::New(_))));
    let bytes = std::fs::read(folder.path().join("pools.sqlite-wal")).unwrap();
    let contains = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(contains(&made.entry().sha256) && !contains(token.expose_secret().as_bytes()), "never the token itself");
    let many = (1..MADE_MAX).map(|number| StoredToken { sha256: sha256(&number.to_string()), ..made.stored() });
    tokens.store.put_tokens(many.collect()).await.unwrap();
    drop((tokens, held));

    let tokens = loaded(folder.path(), std::slice::from_ref(&admin)).await;
    assert!(tokens.holder(token.expose_secret()).is_some());
    assert!(matches!(tokens.make("more", Role::Viewer, None).await, Err(TokensError::TooMany)));
    // There is room when one is of no use any more: that one is forgotten, and not accepted either.
    tokens.revoke(&made.id()).await.unwrap();
    tokens.make("more", Role::Viewer, None).await.unwrap();
    assert_eq!(tokens.all().len(), MADE_MAX + 1);
    assert!(tokens.holder(token.expose_secret()).is_none());
    assert!(matches!(tokens.revoke(&made.id()).await, Err(TokensError::Unknown(_))));
    assert_eq!(tokens.store.tokens().await.unwrap().len(), MADE_MAX);
}

#[tokio::test]
async fn an_admin_token_made_here_takes_the_place_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let (_, admin) = declared("admin", Role::Admin);
    let tokens = loaded(folder.path(), std::slice::from_ref(&admin)).await;
    assert!(!ApiTokens::any_in(&*tokens.store, NOW).await.unwrap());
    let soon = tokens.clock.now() + Duration::from_secs(3600);
    let (_, made) = tokens.make("next", Role::Admin, Some(soon)).await.unwrap();
    tokens.revoke(&tokens.all()[0].id()).await.unwrap();
    assert!(matches!(tokens.revoke(&made.id()).await, Err(TokensError::LastAdmin)));
    assert!(ApiTokens::any_in(&*tokens.store, NOW).await.unwrap());
    assert!(!ApiTokens::any_in(&*tokens.store, soon).await.unwrap(), "not when it has expired");
}
