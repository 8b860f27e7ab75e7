//! A config that is accepted comes back from its own JSON; whatever is refused is refused with a reason.
#![no_main]

use kasm_autoscale_core::config::{ConfigSpec, JsonObject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = serde_json::from_slice::<JsonObject>(bytes) else { return };
    match ConfigSpec::from_json(&object) {
        Ok(spec) => {
            let written = spec.to_json();
            assert_eq!(ConfigSpec::try_from(written), Ok(spec));
        }
        Err(invalid) => assert!(!invalid.problems.is_empty()),
    }
});
