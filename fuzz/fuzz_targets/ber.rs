//! libFuzzer's way into the target `ber`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::BER.check)(input));
