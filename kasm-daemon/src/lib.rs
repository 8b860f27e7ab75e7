//! x

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod auth;
pub mod clock;
pub mod driver;
pub mod host;
pub mod metrics;
pub mod probe;
pub mod store;
