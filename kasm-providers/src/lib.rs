//! VM providers for `kasm-autoscale-core`: one module and one cargo feature for each.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(any(feature = "aws", feature = "azure", feature = "fuzzing"))]
mod classes;
// Nothing of the SDK is in it, so that it can be fuzzed without building that.
#[cfg(any(feature = "aws", feature = "fuzzing"))]
#[cfg_attr(not(feature = "aws"), expect(unreachable_pub, reason = "with its provider, this is a part of the API"))]
mod ec2_errors;
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
