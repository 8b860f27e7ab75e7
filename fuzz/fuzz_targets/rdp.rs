//! libFuzzer's way into the target `rdp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| _ = (kasm_fuzz::targets::RDP.check)(input));
