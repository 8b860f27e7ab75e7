//! libFuzzer's way into the target `facts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::FACTS.check)(input));
