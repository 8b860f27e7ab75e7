//! A distinguished name that is read comes back from its own text, and no text makes the reader panic.
#![no_main]

use kasm_ad::Dn;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(name) = text.parse::<Dn>() {
        assert_eq!(name.to_string().parse::<Dn>().as_ref(), Ok(&name));
        assert!(!name.is_below(&name));
    }
});
