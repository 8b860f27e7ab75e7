//! The targets, and the list of all of them.

mod api;
mod clouds;
mod directory;
mod facts;
mod files;
mod rows;
mod script;
mod settings;
mod small;
mod world;

pub use api::API;
pub use clouds::{AZURE, ERRORS};
pub use directory::{BER, DN, FILTER};
pub use facts::FACTS;
pub use files::{FILE, PROBE, RDP};
pub use rows::RESTORE;
pub use script::SCRIPT;
pub use settings::{CONFIG, POOL};
pub use small::{DURATION, PATTERN, TAPE, TOKEN};
pub use world::WORLD;

use crate::Target;

/// Every target. `fuzz_targets` has a file for each.
pub const ALL: [Target; 19] = [
    API, AZURE, BER, CONFIG, DN, DURATION, ERRORS, FACTS, FILE, FILTER, PATTERN, POOL, PROBE, RDP, RESTORE, SCRIPT,
    TAPE, TOKEN, WORLD,
];
