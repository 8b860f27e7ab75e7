//! libFuzzer's way into the target `pool`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::POOL.check)(input));
