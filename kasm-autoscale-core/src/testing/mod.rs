//! Stand-ins for tests, simulations and demos. Behind the feature `testing`; nothing here runs in production.
//!
//! Everything is deterministic: time is an argument, and whatever is left to chance is drawn from one
//! [`Entropy`](entropy::Entropy), so that a run is repeated by its seed.

pub mod cloud;
pub mod conformance;
pub mod directory;
pub mod entropy;
pub mod fleet;
