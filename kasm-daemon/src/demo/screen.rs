//! What the demo prints: one line whenever the pool's numbers or its decision have changed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use kasm_autoscale_core::report::{ConfigReport, Decision, Event, Report, What};
use kasm_autoscale_core::time::Timestamp;
use kasm_providers::simulated::SimulatedProvider;
use tokio::sync::broadcast;

use super::line;
use super::users::Tally;
use crate::clock::Clock;
use crate::driver::PoolHandle;

const HEADER: &str = "   time  users waiting | free coming target | creating starting ready draining deleting | why";
/// How often the pool is looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// After how many lines the header is printed again.
const HEADER_EVERY: u32 = 20;

pub(super) struct Screen {
    started_at: Option<Timestamp>,
    last: Option<(Numbers, String)>,
    events: broadcast::Receiver<Event>,
    lines: u32,
    most_servers: u32,
    most_users: u32,
}

/// The numbers of a line.
#[derive(Clone, Copy, PartialEq)]
struct Numbers {
    users: u32,
    waiting: u32,
    free: u32,
    coming: u32,
    target: u32,
    phases: [u32; 5],
}

impl Screen {
    pub(super) fn start(api: SocketAddr, pool: &PoolHandle) -> io::Result<Self> {
        line(
            "A pool of simulated Windows servers. Its one promise: 10 sessions are free at all times, 4 on each server.",
        )?;
        line(&format!(
            "Ask it why:  curl http://{api}/v1/pools/desktops/why     All it can do:  http://{api}/openapi.json"
        ))?;
        line("Users come after a few seconds, and once in a while a whole course at once. Ctrl-C ends it.\n")?;
        Ok(Self { started_at: None, last: None, events: pool.events(), lines: 0, most_servers: 0, most_users: 0 })
    }

    /// Shows the pool until it is stopped from outside.
    pub(super) async fn follow(&mut self, pool: &PoolHandle, clock: Clock) -> io::Result<()> {
        loop {
            self.show(pool, clock).await?;
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// One look; one line if something has changed.
    pub(super) async fn show(&mut self, pool: &PoolHandle, clock: Clock) -> io::Result<()> {
        let Ok(report) = pool.look(|pool| pool.report()).await else { return Ok(()) };
        let now = clock.now();
        let started_at = *self.started_at.get_or_insert(now);
        let Some(config) = report.configs.first() else { return Ok(()) };
        let acted = self.last_action().unwrap_or_else(|| config.decision.clone());
        let shown = (numbers(&report, config), why(&acted, now));
        self.most_servers = self.most_servers.max(shown.0.phases.iter().sum());
        self.most_users = self.most_users.max(shown.0.users);
        if self.last.as_ref() == Some(&shown) {
            return Ok(());
        }
        if self.lines.is_multiple_of(HEADER_EVERY) {
            line(HEADER)?;
        }
        self.lines += 1;
        line(&row(now.since(started_at), &shown.0, &shown.1))?;
        self.last = Some(shown);
        Ok(())
    }

    /// The last decision to do something since the last look: it is over in a moment, and what people want to see.
    fn last_action(&mut self) -> Option<Decision> {
        let mut last = None;
        while let Ok(event) = self.events.try_recv() {
            if let What::Decided { decision, .. } = event.what
                && matches!(decision, Decision::Create { .. } | Decision::Undrain { .. } | Decision::Drain { .. })
            {
                last = Some(decision);
            }
        }
        last
    }

    pub(super) fn note(&self, text: &str) -> io::Result<()> {
        line(&format!("\n-- {text}"))
    }

    pub(super) fn summary(&self, users: &Tally, provider: &SimulatedProvider) -> io::Result<()> {
        let (made, left) = provider.with_cloud(|cloud, now| (cloud.created_total(), cloud.live_count(now)));
        let waited = match users.waited {
            0 => "nobody had to wait".to_owned(),
            count => format!("{count} of them waited, {:.1} s at the longest", users.longest_wait.as_secs_f64()),
        };
        line("")?;
        line(&format!("users served    {:>4}   {waited}", users.served))?;
        line(&format!("users refused   {:>4}", users.refused))?;
        line(&format!("most at once    {:>4} users on {} servers", self.most_users, self.most_servers))?;
        line(&format!("servers made    {made:>4}"))?;
        line(&format!("left behind     {left:>4} machines"))
    }
}

fn numbers(report: &Report, config: &ConfigReport) -> Numbers {
    let (supply, servers) = (&config.supply, &config.servers);
    let phases = [servers.creating, servers.starting, servers.ready, servers.draining, servers.deleting];
    Numbers {
        users: report.sessions,
        waiting: report.waiting,
        free: supply.free,
        coming: supply.coming,
        target: supply.target,
        phases,
    }
}

fn row(time: Duration, n: &Numbers, why: &str) -> String {
    let [creating, starting, ready, draining, deleting] = n.phases;
    format!(
        "{:6.1}s {:6} {:7} | {:4} {:6} {:6} | {creating:8} {starting:8} {ready:5} {draining:8} {deleting:8} | {why}",
        time.as_secs_f64(),
        n.users,
        n.waiting,
        n.free,
        n.coming,
        n.target
    )
}

/// The decision in a few words. The numbers stand beside it, and times count from now.
fn why(decision: &Decision, now: Timestamp) -> String {
    match decision {
        Decision::Steady { .. } => "enough".into(),
        Decision::Create { servers, held_back, .. } => {
            let more = held_back.as_ref().map_or(String::new(), |why| format!("; not more: {why}"));
            format!("too few: create {servers}{more}")
        }
        Decision::Undrain { servers, .. } => format!("too few: take {servers} draining back"),
        Decision::Wait { because, .. } => format!("too few, but {because}"),
        Decision::SurplusHeld { servers, until, .. } if *until > now => format!("{servers} too many, kept for a while"),
        Decision::SurplusHeld { servers, .. } => format!("{servers} too many"),
        Decision::SurplusInDoubt { servers, invariant, .. } => format!("{servers} too many, but frozen: {invariant}"),
        Decision::SurplusFrozen { servers, loss, .. } => format!("{servers} too many, but {loss}"),
        Decision::Drain { servers, .. } => format!("too many for long enough: drain {servers}"),
        Decision::Emptying { .. } => "disabled: emptying".into(),
        Decision::Empty => "disabled: empty".into(),
    }
}
