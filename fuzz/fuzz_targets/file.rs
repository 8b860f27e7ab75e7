//! libFuzzer's way into the target `file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: kasm_fuzz::Verdict = (kasm_fuzz::targets::FILE.check)(input);
});
