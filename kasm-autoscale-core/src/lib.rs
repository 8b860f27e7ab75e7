//! x
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

mod advance;
pub mod backoff;
pub mod capacity;
pub mod check;
pub mod command;
pub mod config;
pub mod execute;
mod facts;
pub mod fields;
pub mod id;
pub mod input;
mod outcomes;
pub mod placement;
mod plan;
pub mod pool;
pub mod ports;
pub mod report;
pub mod row;
pub mod script;
pub mod server;
pub mod session;
mod state;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod token;
