//! What the benchmarks share: pools of a given size, and a user who comes and goes.
//!
//! The goal figures they are held against are those of the design: placement in about 50 ns a pair at 100,000 servers, a
//! decision that does not grow with the fleet.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::time::Duration;

use kasm_autoscale_core::config::PlacementPolicy;
use kasm_autoscale_core::id::{ProviderName, SessionId, UserName};
use kasm_autoscale_core::input::{Answer, Fact, Input, Ticket};
use kasm_autoscale_core::pool::Pool;
use kasm_autoscale_core::ports::Capabilities;
use kasm_autoscale_core::row::Row;
use kasm_autoscale_core::session::SessionRequest;
use kasm_autoscale_core::testing::fleet::{Fleet, NOW};
use kasm_autoscale_core::time::Timestamp;

/// The fleet sizes that are measured.
pub const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

/// A fleet of this many servers of four sessions, 70 % of them taken, with enough free not to grow.
pub fn fleet(servers: u32) -> Fleet {
    let sessions = u64::from(servers) * 4 * 7 / 10;
    Fleet { servers, per_server: 4, sessions, minimum_available: servers, placement: PlacementPolicy::Spread }
}

/// The capabilities of a provider that is not asked anything while it is measured.
pub fn capabilities() -> Capabilities {
    let long = Duration::from_secs(1_000_000);
    Capabilities {
        kind: "simulated",
        visibility_lag: Duration::ZERO,
        poll_busy: long,
        poll_idle: long,
        creates_in_flight_max: 1_000_000,
        call_timeout: long,
        offering: &[],
    }
}

/// The pool that these rows describe, its provider known.
///
/// # Panics
/// If the rows are no pool.
pub fn pool(rows: Vec<Row>) -> Pool {
    let mut pool = Pool::restore(rows, NOW).unwrap_or_else(|error| panic!("{error}"));
    let name: ProviderName = "simulated".parse().unwrap_or_else(|error| panic!("{error}"));
    // What the first step decides is not measured, so nobody carries it out.
    drop(pool.step(NOW, [Fact::ProviderKnown(name, capabilities()).into()]).saved());
    pool
}

/// A user asks for a session and gets it: one whole step, with events, reasons and writes.
///
/// # Panics
/// If the session is refused.
pub fn request(pool: &mut Pool, now: Timestamp, user: u64) -> SessionId {
    let user: UserName = format!("guest{user}").parse().unwrap_or_else(|error| panic!("{error}"));
    let fact = Fact::SessionRequested(SessionRequest { user, zone: None, key: None });
    let outputs = pool.step(now, [Input { ticket: Some(Ticket(1)), fact }]).saved();
    match outputs.answers.as_slice() {
        [(_, Answer::Session(id))] => *id,
        other => panic!("no session: {other:?}"),
    }
}

/// The session ends: one whole step.
pub fn end(pool: &mut Pool, now: Timestamp, session: SessionId) {
    drop(pool.step(now, [Fact::SessionEnded(session).into()]).saved());
}
