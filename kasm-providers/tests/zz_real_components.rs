//! Says, near the end of a test run, which real components were missing, and so which tests did not run.
//!
//! The name puts it behind the other tests. With `KASM_REAL=required` a missing component fails here, as it does where it
//! is used.

#[path = "../../tests/support/real.rs"]
mod real;

use real::Program;

#[test]
fn every_real_component_is_there_or_named() {
    let components = [
        ("moto_server", "KASM_MOTO_SERVER", "run `make tools`; the EC2 tests did not run"),
        ("xrdp", "KASM_REAL_XRDP", "install xrdp; the RDP tests did not run"),
        (
            "freerdp-shadow-cli",
            "KASM_REAL_FREERDP_SHADOW",
            "install freerdp2-shadow-x11; the test of RDP with NLA did not run",
        ),
        ("Xvfb", "KASM_REAL_XVFB", "install xvfb; the test of RDP with NLA did not run"),
        ("Xtigervnc", "KASM_REAL_XVNC", "install tigervnc-standalone-server; the VNC test did not run"),
        ("sshd", "KASM_REAL_SSHD", "install openssh-server; the SSH test did not run"),
        ("openssl", "KASM_REAL_OPENSSL", "install openssl; the TLS tests did not run"),
    ];
    for (name, variable, install) in components {
        // It tells of a component that is missing, or fails this test if components are required.
        drop(Program { name, variable, install }.find());
    }
}
