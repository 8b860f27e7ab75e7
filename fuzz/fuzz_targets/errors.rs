//! libFuzzer's way into the target `errors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _: kasm_fuzz::Verdict = (kasm_fuzz::targets::ERRORS.check)(input);
});
