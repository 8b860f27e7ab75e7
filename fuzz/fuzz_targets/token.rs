//! Nothing that the fuzzer writes is a token of ours.
#![no_main]

use kasm_autoscale_core::time::Timestamp;
use kasm_autoscale_core::token::{DeploymentKey, verify_checkin_token};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let key = DeploymentKey::new([0x5a; 32]);
    assert!(verify_checkin_token(&key, text, Timestamp::from_secs(1)).is_err());
});
