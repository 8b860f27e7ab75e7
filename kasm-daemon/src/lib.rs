//! The reference daemon of the Kasm autoscaler, as a library: driver, store, HTTP API, config file, prober.
//!
//! It decides nothing: `kasm-autoscale-core` does. Every part can be used without the others; `run.rs` and `demo` show how
//! they are put together.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod connect;
pub mod demo;
pub mod directories;
pub mod driver;
pub mod file;
pub mod host;
pub mod metrics;
pub mod preflight;
pub mod probe;
pub mod providers;
pub mod run;
pub mod secrets;
pub mod signals;
pub mod store;
#[cfg(feature = "script-check")]
pub mod syntax;
pub mod tls;
pub mod tokens;
pub mod trail;
pub mod users;
pub mod workspaces;
