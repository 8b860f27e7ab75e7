//! libFuzzer's way into the target `probe`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::PROBE.check)(input));
