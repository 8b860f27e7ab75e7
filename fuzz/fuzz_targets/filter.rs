//! libFuzzer's way into the target `filter`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::FILTER.check)(input));
