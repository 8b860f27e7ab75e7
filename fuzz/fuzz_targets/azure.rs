//! libFuzzer's way into the target `azure`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::AZURE.check)(input));
