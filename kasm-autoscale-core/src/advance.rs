//! Moves each server on as far as the picture allows: one look at one server, whatever brought it about.

use alloc::string::ToString;
use alloc::vec::Vec;

use crate::command::{Action, CreateMachine, Outcome};
use crate::config::{ConfigSpec, PlacementPolicy};
use crate::id::{ConfigId, ServerId, SessionId, ZoneName};
use crate::placement::Choice;
use crate::ports::ProbeTarget;
use crate::report::{BackoffKind, What};
use crate::server::{CreateCall, DeleteCall, DeleteReason, DrainReason, Missing, Phase, Server, drained_at};
use crate::session::SessionState;
use crate::state::{Config, State};
use crate::time::Timestamp;

/// How long after its boot deadline a machine's check-in token is still good: a late check-in is answered with a reason.
const CHECKIN_GRACE: core::time::Duration = core::time::Duration::from_secs(3600);

/// How long what a mass loss or a freeze holds back waits before it looks again.
pub(crate) const HELD_FOR: core::time::Duration = core::time::Duration::from_secs(60);

impl State {
    /// Looks at every server that was touched, and at those this touches in turn.
    pub(crate) fn advance(&mut self) {
        while let Some(id) = self.journal.touched.pop_first() {
            self.advance_server(id);
        }
    }

    fn advance_server(&mut self, id: ServerId) {
        let Some(server) = self.servers.get(&id) else { return };
        if let Some(busy) = server.busy.filter(|busy| busy.until <= self.now) {
            // The host has forgotten it. What it was for is looked at as if the answer had been lost on the way.
            self.finished(busy.command, Outcome::Lost);
            return;
        }
        match server.phase {
            Phase::Enrolling { .. } => self.advance_enrolling(id),
            Phase::Creating { .. } => self.advance_creating(id),
            Phase::Starting { .. } => self.advance_starting(id),
            Phase::Ready { .. } => self.advance_ready(id),
            Phase::Draining { .. } => self.advance_draining(id),
            Phase::Deleting { .. } => self.advance_deleting(id),
            Phase::Unenrolling { .. } => self.advance_unenrolling(id),
        }
    }

    fn advance_creating(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let Phase::Creating { call, deadline } = &server.phase else { return };
        if self.give_up_on(server, *deadline) {
            self.give_up(id);
            return;
        }
        if server.busy.is_some() {
            return;
        }
        if *call == CreateCall::Intended && self.is_halted(server.config) {
            // Nothing has left yet, so nothing is there; one that waited would only run into its deadline.
            self.machine_gone(id, Some(DeleteReason::Frozen));
            return;
        }
        let provider = self.born_with(server).provider.clone();
        let action = match call {
            CreateCall::Intended => Action::Create(self.create_machine(server, *deadline)),
            CreateCall::Unsure { find_at, .. } if *find_at <= self.now => {
                Action::Find { provider, server: self.key(id) }
            }
            CreateCall::Accepted { op, poll_at } if *poll_at <= self.now => Action::Poll { provider, op: op.clone() },
            CreateCall::Unsure { .. } | CreateCall::Accepted { .. } => return,
        };
        self.send_for_server(id, action);
    }

    /// The request for a server's machine: made of nothing but its row, so it is the same every time.
    fn create_machine(&self, server: &Server, deadline: Timestamp) -> CreateMachine {
        CreateMachine {
            deployment: self.row.spec.deployment,
            server: self.key(server.id),
            config: server.config,
            spec: self.born_with(server).clone(),
            checkin_expires_at: deadline + CHECKIN_GRACE,
        }
    }

    pub(crate) fn give_up_on(&self, server: &Server, deadline: Timestamp) -> bool {
        deadline <= self.now || !self.configs[&server.config].is_on()
    }

    /// A server that is not ready is no longer wanted, or has taken too long.
    pub(crate) fn give_up(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let spec = self.born_with(server);
        let config = server.config;
        let why = match server.missing(spec.require_checkin) {
            _ if !self.configs[&config].is_on() => DeleteReason::NotWanted,
            Some(missing) => DeleteReason::BootDeadline { missing },
            None => DeleteReason::NotWanted,
        };
        // A server without a computer object has made no machine, and the directory's failures are counted already.
        if let DeleteReason::BootDeadline { missing } = why
            && missing != Missing::Computer
        {
            self.fail(config, BackoffKind::Boot, None, why.to_string());
            self.give_up_failed(id, why);
        } else {
            self.delete_server(id, why);
        }
    }

    fn advance_starting(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let Phase::Starting { deadline, running, answered, probe_at, joined, join_at } = server.phase else { return };
        let spec = self.born_with(server).clone();
        if server.missing(spec.require_checkin).is_none() && self.configs[&server.config].is_on() {
            let since = self.now;
            self.enter_phase(id, Phase::Ready { since }, None);
            self.forgive_boot(id);
        } else if self.give_up_on(server, deadline) {
            self.give_up(id);
        } else if !running || server.busy.is_some() {
            // Nothing to ask about yet, or a question is under way.
        } else if !answered
            && probe_at <= self.now
            && let Some(target) = probe_target(server, &spec)
        {
            self.send_for_server(id, Action::Probe { target });
        } else if !joined && join_at <= self.now {
            self.ask_whether_joined(id);
        }
    }

    fn advance_ready(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let config = &self.configs[&server.config];
        let spent = !self.born_with(server).reusable && server.taken > 0 && server.sessions == 0;
        let why = match (config.is_on(), spent) {
            (_, true) => DrainReason::Used,
            (true, false) => return,
            (false, false) if config.removed => DrainReason::Removed,
            (false, false) => DrainReason::Disabled,
        };
        let since = self.now;
        self.enter_phase(id, Phase::Draining { since, why }, Some(why.to_string()));
    }

    fn advance_draining(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let Phase::Draining { since, why } = server.phase else { return };
        let on = self.configs[&server.config].is_on();
        let spent = !self.born_with(server).reusable && server.taken > 0;
        if on && matches!(why, DrainReason::Disabled | DrainReason::Removed) && !(spent && server.sessions == 0) {
            // Its config is wanted again: the plan says whether it is needed, as for any ready server.
            let since = self.now;
            self.enter_phase(id, Phase::Ready { since }, Some("config enabled again".into()));
        } else if (server.sessions == 0 || planted!("sessions-not-looked-at-before-delete"))
            && drained_at(since, why) <= self.now
        {
            self.delete_server(id, DeleteReason::Drained(why));
        }
    }

    fn advance_deleting(&mut self, id: ServerId) {
        let server = &self.servers[&id];
        let Phase::Deleting { call, next_at, why, .. } = &server.phase else { return };
        let (kept, held) = (self.is_kept(id), *call == DeleteCall::Send && self.is_held(server.config, why));
        if kept && (*next_at <= self.now || !self.configs[&server.config].is_on()) {
            self.let_go(id);
            return;
        }
        if server.busy.is_some() || *next_at > self.now {
            return;
        }
        if held {
            let again = self.now + HELD_FOR;
            self.edit_deletion(id, |_, _, next_at| *next_at = again);
            return;
        }
        let provider = self.born_with(server).provider.clone();
        let action = match (call, &server.machine) {
            (DeleteCall::Kept { .. }, _) => return,
            (DeleteCall::Send, Some(machine)) => Action::Delete { provider, machine: machine.clone() },
            _ => Action::Find { provider, server: self.key(id) },
        };
        self.send_for_server(id, action);
    }

    // --- placement ---

    /// Places those who wait, the first to come first, as long as there is a free session.
    pub(crate) fn place_queue(&mut self) {
        while let Some(id) = self.queue.first().copied() {
            let Some(server) = self.best_server(self.sessions[&id].zone.as_ref()) else { return };
            self.place(id, server);
        }
    }

    /// The best server with a free session: of the user's own zone, else of any.
    pub(crate) fn best_server(&self, zone: Option<&ZoneName>) -> Option<ServerId> {
        let policy = self.row.spec.placement;
        let near = zone.and_then(|zone| self.best_of(policy, |config| config.spec().zone == *zone));
        let choice = near.or_else(|| self.best_of(policy, |_| true))?;
        self.server_in_slot.get(choice.slot as usize).copied().flatten()
    }

    fn best_of(&self, policy: PlacementPolicy, of: impl Fn(&Config) -> bool) -> Option<Choice> {
        self.configs.values().filter(|config| of(config)).filter_map(|config| config.index.best(policy)).min()
    }

    fn place(&mut self, id: SessionId, server: ServerId) {
        let now = self.now;
        let expires_at = now + self.row.spec.keepalive_expiry;
        self.edit_server(server, |server| server.taken = server.taken.saturating_add(1));
        self.edit_session(id, |session| session.state = SessionState::Active { server, since: now, expires_at });
        let session = &self.sessions[&id];
        let (user, waited) = (session.user.clone(), now.since(session.requested_at));
        self.event(What::SessionPlaced { session: id, user, server, waited });
    }

    /// The servers of a config that may be given up first, best first, at most `count`, with `sessions` sessions at most.
    /// One that is too large for the rest is passed over: after an edit there may be smaller ones.
    pub(crate) fn victims(&self, config: ConfigId, count: u32, sessions: u32) -> Vec<ServerId> {
        let mut index = self.configs[&config].index.clone();
        let mut victims = Vec::new();
        let (mut count, mut sessions) = (count, sessions);
        while let Some(slot) = index.last_unused().filter(|_| count > 0) {
            let Some(id) = self.server_in_slot.get(slot as usize).copied().flatten() else { break };
            let size = self.born_with(&self.servers[&id]).max_sessions_per_server.get();
            index.remove(slot, 0, size);
            if size <= sessions {
                victims.push(id);
                (count, sessions) = (count - 1, sessions - size);
            }
        }
        victims
    }
}

/// Where a server's connection port is probed, once it has an address.
pub(crate) fn probe_target(server: &Server, spec: &ConfigSpec) -> Option<ProbeTarget> {
    let address = server.address.as_ref()?;
    let connection = &spec.connection;
    Some(ProbeTarget {
        host: connection.address.clone().unwrap_or_else(|| address.host.clone()),
        port: address.port.unwrap_or(connection.port),
        connection: connection.kind,
    })
}
