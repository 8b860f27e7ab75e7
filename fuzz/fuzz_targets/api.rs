//! libFuzzer's way into the target `api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::API.check)(input));
