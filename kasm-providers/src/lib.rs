//! VM providers for `kasm-autoscale-core`: one module and one cargo feature for each.

/// Machines on AWS EC2.
#[cfg(feature = "aws")]
pub mod aws;
/// Simulated machines with real ports on loopback, for demos and tests.
#[cfg(feature = "simulated")]
pub mod simulated;
