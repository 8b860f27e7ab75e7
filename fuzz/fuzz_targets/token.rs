//! libFuzzer's way into the target `token`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::TOKEN.check)(input));
