//! libFuzzer's way into the target `restore`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::RESTORE.check)(input));
