//! Says, near the end of a test run, whether the tests against a real domain controller ran.
//!
//! The name puts it behind the other tests. With `KASM_REAL=required` a missing component fails here, as it does where it
//! is used.

#[path = "../../tests/support/real.rs"]
mod real;

use real::Program;

#[test]
fn every_real_component_is_there_or_named() {
    let install = "run `make tools`; the tests against a real domain controller did not run";
    let components = [
        ("samba", "KASM_REAL_SAMBA"),
        ("samba_spnupdate", "KASM_REAL_SAMBA_SPNUPDATE"),
        ("adcli", "KASM_REAL_ADCLI"),
        ("kinit", "KASM_REAL_KINIT"),
        ("openssl", "KASM_REAL_OPENSSL"),
    ];
    for (name, variable) in components {
        // It tells of a component that is missing, or fails this test if components are required.
        drop(Program { name, variable, install }.find());
    }
}
