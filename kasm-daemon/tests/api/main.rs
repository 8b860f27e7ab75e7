//! The HTTP API as its users meet it: a real host, a real store, real HTTP over loopback, a simulated cloud.

mod bounds;
mod burst;
mod client;
mod document;
mod failures;
mod freeze;
mod full_store;
mod journeys;
mod limits;
mod machines;
mod mistakes;
mod rates;
mod recorded;
mod refusing;
mod roles;
mod secrets;
mod sessions;
mod stage;
mod tokens;
mod unrecorded;
mod users;
mod workspaces;
