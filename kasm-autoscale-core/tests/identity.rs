//! Identifiers, names and check-in tokens: each is read back as it was written, and nothing else is taken for it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kasm_autoscale_core::id::{
    CommandId, ConfigId, DeploymentId, PoolId, PoolName, ServerId, ServerKey, SessionId, UserName,
};
use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{
    DeploymentKey, LEEWAY, TOKEN_BYTES_MAX, TokenError, checkin_token, join_password, verify_checkin_token,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use std::time::Duration;

const POOL: PoolId = PoolId::from_bytes([2; 16]);
const UNTIL: Timestamp = Timestamp::from_secs(2_000_000_000);

fn key(serial: u64) -> ServerKey {
    ServerKey { pool: POOL, server: ServerId::new(serial) }
}

// --- identifiers ---

proptest! {
    #[test]
    fn i_22_uuids_and_names_are_what_they_must_be(pool: [u8; 16], serial in 0..1_u64 << 62) {
        let key = ServerKey { pool: PoolId::from_bytes(pool), server: ServerId::new(serial) };
        let uuid = key.uuid();
        prop_assert_eq!(uuid.len(), 36);
        prop_assert_eq!(&uuid[14..15], "8", "version 8");
        prop_assert!("89ab".contains(&uuid[19..20]), "RFC 9562 variant: {}", uuid);
        prop_assert_eq!(ServerKey::from_uuid(key.pool, &uuid), Some(key));
        prop_assert_eq!(ServerKey::from_uuid(PoolId::from_bytes([0xee; 16]), &uuid), None);
        let name = key.machine_name();
        let name = name.as_str();
        prop_assert_eq!(name.len(), 15);
        prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') && !name.ends_with('-'));
    }

    #[test]
    fn ids_are_read_as_they_are_shown(bytes: [u8; 16], serial: u64, small: u32) {
        let id = PoolId::from_bytes(bytes);
        prop_assert_eq!(id.to_string().parse::<PoolId>().unwrap(), id);
        prop_assert_eq!(id.to_string().to_uppercase().parse::<PoolId>().unwrap(), id);
        prop_assert_eq!(serde_json::from_str::<PoolId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        prop_assert_eq!(ServerId::new(serial).to_string().parse::<ServerId>().unwrap().serial(), serial);
        prop_assert_eq!(SessionId::new(serial).to_string().parse::<SessionId>().unwrap().serial(), serial);
        prop_assert_eq!(ConfigId::new(small).to_string().parse::<ConfigId>().unwrap().serial(), small);
        prop_assert_eq!(CommandId::new(serial).to_string().parse::<CommandId>().unwrap().serial(), serial);
    }

    #[test]
    fn no_text_makes_an_id_panic(text in ".{0,80}") {
        let _ = (text.parse::<PoolId>(), text.parse::<ServerId>(), text.parse::<UserName>(), ServerKey::from_uuid(POOL, &text));
        let is_name = text.parse::<PoolName>().is_ok();
        prop_assert!(!is_name || (text.len() <= 63 && text.is_ascii() && !text.contains(' ')));
    }
}

#[test]
fn what_is_no_id_is_refused() {
    for wrong in
        ["", "srv", "srv-", "srv--1", "srv-+1", "srv- 1", "SRV-1", "ses-1", "srv-18446744073709551616", "srv-1x"]
    {
        assert!(wrong.parse::<ServerId>().is_err(), "{wrong:?}");
    }
    let right = DeploymentId::from_bytes([0xab; 16]).to_string();
    assert!(right.parse::<DeploymentId>().is_ok());
    for wrong in
        [&right[1..], &format!("{right}0"), &right.replace('-', ""), &right.replace('a', "g"), &format!("{{{right}}}")]
    {
        assert!(wrong.parse::<DeploymentId>().is_err(), "{wrong:?}");
    }
    let said = "a b".parse::<PoolName>().unwrap_err().to_string();
    assert!(said.starts_with("\"a b\" is not a pool name: 1 to 63 letters"), "{said}");
    for wrong in ["", "   ", "a\nb", "a\u{7f}", &"x".repeat(257)] {
        assert!(wrong.parse::<UserName>().is_err(), "{wrong:?}");
    }
    for right in ["ann", "CORP\\ann", "ann@corp.example", "Zoë", &"ë".repeat(256)] {
        assert!(right.parse::<UserName>().is_ok(), "{right:?}");
    }
}

#[test]
fn i_22_a_hundred_thousand_servers_have_as_many_names() {
    let names: BTreeSet<String> = (0..100_000).map(|serial| key(serial).machine_name().to_string()).collect();
    assert_eq!(names.len(), 100_000);
}

#[test]
fn uuids_and_names_stay_as_they_are_for_ever() {
    // Machines bear them: another form would make orphans of them all.
    assert_eq!(key(1).uuid(), "403d7256-a042-8580-8000-000000000001");
    assert_eq!(key(1).machine_name().as_str(), "kasm-astx32qpkj");
}

// --- tokens ---

fn secret() -> DeploymentKey {
    DeploymentKey::new([7; 32])
}

fn verify(token: &str, now: Timestamp) -> Result<ServerKey, TokenError> {
    verify_checkin_token(&secret(), token, now)
}

#[test]
fn a_token_names_its_server_until_it_expires_to_the_millisecond() {
    let token = checkin_token(&secret(), &key(42), UNTIL);
    assert_eq!(verify(&token, Timestamp::default()), Ok(key(42)));
    assert_eq!(verify(&token, UNTIL + LEEWAY), Ok(key(42)));
    assert_eq!(verify(&token, UNTIL + LEEWAY + Duration::from_millis(1)), Err(TokenError::Expired));
    assert_eq!(checkin_token(&secret(), &key(42), UNTIL), token, "I-07 the same bytes for every try");
    assert!(token.len() < 400, "{} bytes of start-up data", token.len());
    assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{token}");
}

#[test]
fn nothing_that_was_changed_is_believed() {
    let token = checkin_token(&secret(), &key(42), UNTIL);
    for at in 0..token.len() {
        for replacement in ["A", "B", ".", "-"] {
            let mut forged = token.clone();
            forged.replace_range(at..=at, replacement);
            let verdict = verify(&forged, UNTIL);
            assert!(forged == token || verdict == Err(TokenError::Forged), "{at}: {forged}");
        }
        assert_eq!(verify(&token[..at], UNTIL), Err(TokenError::Forged), "cut off at {at}");
        assert_eq!(verify(&token[at + 1..], UNTIL), Err(TokenError::Forged), "begun at {at}");
    }
    assert_eq!(verify(&format!("{token} "), UNTIL), Err(TokenError::Forged));
    assert_eq!(verify(&format!("{token}="), UNTIL), Err(TokenError::Forged));
}

#[test]
fn a_token_of_another_installation_is_forged_and_never_merely_expired() {
    let theirs = checkin_token(&DeploymentKey::new([8; 32]), &key(42), UNTIL);
    assert_eq!(verify(&theirs, UNTIL), Err(TokenError::Forged));
    assert_eq!(verify(&theirs, UNTIL + Duration::from_secs(9999)), Err(TokenError::Forged));
}

#[test]
fn only_one_algorithm_is_known() {
    let token = checkin_token(&secret(), &key(42), UNTIL);
    let payload = token.split('.').nth(1).unwrap();
    let signature = token.split('.').nth(2).unwrap();
    for header in
        [r#"{"alg":"none","typ":"JWT"}"#, r#"{"alg":"HS512","typ":"JWT"}"#, r#"{"typ":"JWT","alg":"HS256"}"#, ""]
    {
        let header = URL_SAFE_NO_PAD.encode(header);
        for signature in ["", signature] {
            assert_eq!(verify(&format!("{header}.{payload}.{signature}"), UNTIL), Err(TokenError::Forged));
        }
    }
}

#[test]
fn a_text_that_is_too_long_is_not_even_looked_at() {
    let token = checkin_token(&secret(), &key(u64::MAX >> 2), Timestamp::from_millis(u64::MAX));
    assert!(token.len() <= TOKEN_BYTES_MAX);
    assert_eq!(verify(&"a.b.c".repeat(TOKEN_BYTES_MAX), UNTIL), Err(TokenError::Forged));
    assert_eq!(verify(&"x".repeat(TOKEN_BYTES_MAX), UNTIL), Err(TokenError::Forged));
    assert_eq!(verify("", UNTIL), Err(TokenError::Forged));
}

#[test]
fn i_27_the_key_is_shown_nowhere() {
    let shown = format!("{:?} {:#?}", secret(), secret());
    assert_eq!(shown, "DeploymentKey DeploymentKey");
}

proptest! {
    #[test]
    fn every_server_has_a_token_of_its_own(pool: [u8; 16], serial in 0..1_u64 << 62, until in 0..4_000_000_000_u64) {
        let server = ServerKey { pool: PoolId::from_bytes(pool), server: ServerId::new(serial) };
        let until = Timestamp::from_secs(until);
        let token = checkin_token(&secret(), &server, until);
        prop_assert_eq!(verify(&token, until), Ok(server));
        let other = ServerKey { server: ServerId::new(serial ^ 1), ..server };
        prop_assert_ne!(checkin_token(&secret(), &other, until), token);
    }

    #[test]
    fn no_text_is_a_token(text in "[a-zA-Z0-9._=-]{0,300}|.{0,60}") {
        prop_assert_eq!(verify(&text, UNTIL), Err(TokenError::Forged));
    }
}

// --- keys of the host's own ---

#[test]
fn a_key_of_the_hosts_own_serves_one_purpose_and_stays_as_it_is_for_ever() {
    let derived = |key: u8, purpose: &str| *DeploymentKey::new([key; 32]).derived(purpose).expose_secret();
    let hex = |bytes: [u8; 32]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // What is sealed with it is verified years later. This one was also computed by other means.
    assert_eq!(hex(derived(7, "audit chain v1")), "bae809b7ca5b3a9da22f71351d616d76d9fed98eefd1b0e81fe09d4b03d8d82b");
    assert_ne!(derived(7, "audit chain v1"), derived(7, "audit chain v2"));
    assert_ne!(derived(7, "audit chain v1"), derived(8, "audit chain v1"));
    let shown = format!("{:?}", DeploymentKey::new([7; 32]).derived("x"));
    assert!(shown.contains("REDACTED") && !shown.contains(','), "{shown}");
}

// --- join passwords ---

fn password(key: [u8; 32], server: &ServerKey, attempt: u32) -> String {
    join_password(&DeploymentKey::new(key), server, attempt).expose_secret().to_owned()
}

proptest! {
    #[test]
    fn i_26_join_passwords_meet_every_policy_and_no_two_are_the_same(
        secret: [u8; 32], pool: [u8; 16], serial in 0..1_u64 << 61, attempt in 0..u32::MAX
    ) {
        let server = ServerKey { pool: PoolId::from_bytes(pool), server: ServerId::new(serial) };
        let text = password(secret, &server, attempt);
        prop_assert_eq!(text.len(), 40);
        prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{}", text);
        let edges = [text.as_bytes()[0], text.as_bytes()[39]];
        prop_assert!(edges.iter().all(u8::is_ascii_alphanumeric), "{}", text);
        for class in [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit] {
            prop_assert!(text.bytes().any(|byte| class(&byte)), "{}", text);
        }
        prop_assert_eq!(&password(secret, &server, attempt), &text, "the same for every try");
        let next = ServerKey { server: ServerId::new(serial + 1), ..server };
        let mut other_secret = secret;
        other_secret[31] ^= 1;
        let mut other_pool = pool;
        other_pool[0] ^= 1;
        let elsewhere = ServerKey { pool: PoolId::from_bytes(other_pool), ..server };
        for other in [
            password(secret, &next, attempt),
            password(secret, &server, attempt + 1),
            password(other_secret, &server, attempt),
            password(secret, &elsewhere, attempt),
        ] {
            prop_assert_ne!(&other, &text);
        }
    }
}

#[test]
fn i_26_every_letter_of_the_alphabet_is_about_as_likely_as_any_other() {
    let mut counts = [0_u32; 256];
    for serial in 0..4000 {
        // The edges have no punctuation, so they are left out.
        for byte in password([7; 32], &key(serial), 0).bytes().skip(1).take(38) {
            counts[usize::from(byte)] += 1;
        }
    }
    let seen: Vec<u32> = counts.into_iter().filter(|count| *count > 0).collect();
    assert_eq!(seen.len(), 65, "62 letters and digits, three marks");
    // 152,000 draws, 2338 of each: five standard deviations are 240.
    assert!(seen.iter().all(|count| (2098..=2578).contains(count)), "{seen:?}");
}

#[test]
fn join_passwords_stay_as_they_are_for_ever_and_are_not_shown() {
    // A create that is sent again after an upgrade must be the same, byte for byte. This one was also computed by other means.
    assert_eq!(password([7; 32], &key(1), 0), "M9Q.gl6ldP_9BRwfDBl1NizFepdxinOMMz8-GbBA");
    let secret = join_password(&secret(), &key(1), 0);
    assert_eq!(format!("{secret:?}"), "JoinPassword");
}
