//! Pools of desktops that keep their free sessions: a pure, deterministic state machine.
//!
//! A [`Pool`](pool::Pool) is a set of servers that users are assigned to, fed by autoscale configs. Each config keeps a
//! promise: so many sessions are free at all times. The pool takes [facts](input::Fact) in, decides what to do about them,
//! and gives out rows to save and [commands](command::Command) to carry out. It reads no clock, opens no file and draws no
//! random number: this crate is `no_std`, so the compiler sees to it.
//!
//! Begin with [`Pool`](pool::Pool), then `examples/embed.rs`, then the scenarios in `tests/scenarios`.
//!
//! | to learn | read |
//! | --- | --- |
//! | what a host does in a loop | [`pool`] |
//! | what a server goes through | [`server`] |
//! | what a provider promises | [`ports`] |
//! | what may be configured | [`config`] |
//! | what can be said of a decision | [`report`] |
//!
//! Feature `testing`: stand-ins for clouds, directories and chance, for tests and simulations.

#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

/// Whether the mistake of this name is planted: only ever in builds that test the tests, see `testing::mutants`.
macro_rules! planted {
    ($name:literal) => {{
        #[cfg(kasm_mutants)]
        let planted = crate::testing::mutants::is_planted($name);
        #[cfg(not(kasm_mutants))]
        let planted = false;
        planted
    }};
}

mod advance;
pub mod backoff;
pub mod capacity;
pub mod check;
pub mod command;
pub mod config;
mod directories;
mod enrolment;
pub mod execute;
mod facts;
mod failures;
mod fallback;
pub mod fields;
mod freeze;
mod guard;
pub mod id;
pub mod input;
mod listings;
mod loss;
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

/// The examples of the project's README are compiled and run with the documentation's own.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
