//! libFuzzer's way into the target `tape`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::TAPE.check)(input));
