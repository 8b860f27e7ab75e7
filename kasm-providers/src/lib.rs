//! VM providers for `kasm-autoscale-core`: one module and one cargo feature for each.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "simulated")]
pub mod simulated;
#[cfg(any(feature = "aws", feature = "azure", feature = "simulated"))]
mod words;

/// The example of the guide is compiled with the documentation's own.
#[cfg(all(doctest, feature = "simulated"))]
#[doc = include_str!("../README.md")]
struct Readme;
