//! Stand-ins for tests, simulations and demos. Behind the feature `testing`; nothing here runs in production.
//!
//! Everything is deterministic: time is an argument, and whatever is left to chance is drawn from one
//! [`Entropy`](entropy::Entropy), so that a run is repeated by its seed.
//!
//! [`world`] puts them together: whole installations, simulated for days, in which everything goes wrong that can.

extern crate std;

pub mod choices;
pub mod cloud;
pub mod conformance;
pub mod directory;
pub mod entropy;
pub mod fleet;
pub mod lock;
#[cfg(kasm_mutants)]
pub mod mutants;
pub mod naive;
pub mod view;
pub mod world;
