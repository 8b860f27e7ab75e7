//! Simulated users: they come in waves and one storm, work for a while, and go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kasm_autoscale_core::id::{SessionId, UserName};
use kasm_autoscale_core::input::{Answer, Fact};
use kasm_autoscale_core::session::{SessionRequest, SessionState};
use kasm_autoscale_core::testing::entropy::{Entropy, Seeded};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::driver::PoolHandle;

/// What users met with.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Users who got a session.
    pub(super) served: u32,
    /// Of those, users who had to wait for one.
    pub(super) waited: u32,
    /// The longest of those waits.
    pub(super) longest_wait: Duration,
    /// Users who got none.
    pub(super) refused: u32,
}

/// The users of the demo.
pub(super) struct Crowd {
    tally: Arc<Mutex<Tally>>,
    users: TaskTracker,
    leave: CancellationToken,
}

/// How often new users may come.
const TICK: Duration = Duration::from_millis(250);
/// How many ticks a day has here: 30 seconds.
const DAY_TICKS: u64 = 120;

impl Crowd {
    pub(super) fn start(pool: PoolHandle, seed: u64, stop: CancellationToken) -> Self {
        let crowd = Self { tally: Arc::default(), users: TaskTracker::new(), leave: stop.child_token() };
        let (tally, users, leave) = (crowd.tally.clone(), crowd.users.clone(), crowd.leave.clone());
        crowd.users.spawn(async move {
            let mut chance = Seeded::new(seed ^ 0x7573_6572);
            let mut user = 0_u64;
            for tick in 0.. {
                for _ in 0..arrivals(tick, &mut chance) {
                    user += 1;
                    let stay = chance.duration(&(Duration::from_secs(4)..=Duration::from_secs(14)));
                    users.spawn(visit(pool.clone(), user, stay, tally.clone(), leave.clone()));
                }
                tokio::select! {
                    () = leave.cancelled() => return,
                    () = tokio::time::sleep(TICK) => {}
                }
            }
        });
        crowd
    }

    /// Sends everybody home, and tells what they met with.
    pub(super) async fn leave(self) -> Tally {
        self.leave.cancel();
        self.users.close();
        self.users.wait().await;
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many users come in a tick: few in the morning, more towards noon, and once a day a course begins.
fn arrivals(tick: u64, chance: &mut Seeded) -> u64 {
    let hour = tick % DAY_TICKS;
    if hour == 48 {
        return 14;
    }
    // Until the first servers are there, nobody comes.
    let open = tick >= 24;
    let busy = hour.min(DAY_TICKS - hour);
    u64::from(open && chance.pick(100) < 10 + busy)
}

/// One user: asks, waits if need be, works, ends.
async fn visit(pool: PoolHandle, number: u64, stay: Duration, tally: Arc<Mutex<Tally>>, leave: CancellationToken) {
    let Ok(user) = format!("user{number}").parse::<UserName>() else { return };
    let clock = Clock::start();
    let Ok(Answer::Session(session)) =
        pool.ask(Fact::SessionRequested(SessionRequest { user, zone: None, key: None })).await
    else {
        tally.lock().unwrap_or_else(PoisonError::into_inner).refused += 1;
        return;
    };
    let asked_at = clock.now();
    let mut waited = false;
    while is_waiting(&pool, session).await && !leave.is_cancelled() {
        waited = true;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.served += 1;
        if waited {
            tally.waited += 1;
            tally.longest_wait = tally.longest_wait.max(clock.now().since(asked_at));
        }
    }
    tokio::select! {
        () = leave.cancelled() => {}
        () = tokio::time::sleep(stay) => {}
    }
    // A pool that has been stopped has no sessions to end.
    drop(pool.ask(Fact::SessionEnded(session)).await);
}

async fn is_waiting(pool: &PoolHandle, session: SessionId) -> bool {
    let waits = pool.look(move |pool| {
        pool.session(session).is_some_and(|session| matches!(session.state, SessionState::Waiting { .. }))
    });
    waits.await.unwrap_or(false)
}
