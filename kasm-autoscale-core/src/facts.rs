//! Takes facts in: each changes the picture, and nothing else.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::backoff::Fates;
use crate::config::{ConfigSpec, PoolSpec};
use crate::id::{ConfigId, ConfigName, ServerId, SessionId};
use crate::input::{Answer, Fact, Input, Refusal};
use crate::report::What;
use crate::row::RowKey;
use crate::server::{CheckIn, DeleteReason, DrainReason, Phase};
use crate::session::{EndReason, Session, SessionRequest, SessionState};
use crate::state::{Config, Edition, State};

type Outcome = Result<Answer, Refusal>;

/// Free text from outside is kept up to this many characters.
const TEXT_CHARS_MAX: usize = 500;

impl State {
    pub(crate) fn take(&mut self, input: Input) {
        let result = match input.fact {
            Fact::ProviderKnown(name, capabilities) => {
                self.extend_doubt(&name, capabilities.call_timeout);
                self.providers.entry(name).or_default().capabilities = Some(capabilities);
                Ok(Answer::Done)
            }
            Fact::DirectoryKnown(name, facts) => {
                self.extend_enrolments(&name, facts.call_timeout);
                self.directories.entry(name).or_default().facts = Some(facts);
                Ok(Answer::Done)
            }
            Fact::PoolSet(spec) => self.set_pool(*spec),
            Fact::ConfigSet(spec) => self.set_config(spec),
            Fact::ConfigRemoved(name) => self.remove_config(&name),
            Fact::SessionRequested(request) => self.request_session(request),
            Fact::SessionEnded(id) => self.end_asked(id),
            Fact::KeptAlive(id) => self.keep_alive(id),
            Fact::CheckedIn { server, status, message, progress } => self.check_in(server, &status, &message, progress),
            Fact::DrainAsked(id) => self.drain_asked(id),
            Fact::UndrainAsked(id) => self.undrain_asked(id),
            Fact::DeleteAsked { server, force } => self.delete_asked(server, force),
            Fact::LossAcknowledged(name) => self.acknowledge_loss(&name),
            Fact::FreezeLifted(name) => self.lift_freeze(&name),
            Fact::RecountAsked => {
                self.journal.recount = true;
                Ok(Answer::Done)
            }
            Fact::Finished(command, outcome) => {
                self.finished(command, outcome);
                Ok(Answer::Done)
            }
        };
        if let Some(ticket) = input.ticket {
            self.journal.answers.push((ticket, result.unwrap_or_else(Answer::Refused)));
        }
    }

    fn set_pool(&mut self, spec: PoolSpec) -> Outcome {
        let ids = (self.row.spec.deployment, self.row.spec.id);
        let spec = PoolSpec { deployment: ids.0, id: ids.1, ..spec };
        if spec != self.row.spec {
            self.row.spec = spec;
            self.journal.changed.insert(RowKey::Pool);
        }
        Ok(Answer::Done)
    }

    fn set_config(&mut self, spec: Box<ConfigSpec>) -> Outcome {
        let id = match self.config_named(&spec.name) {
            Some(id) if **self.configs[&id].spec() == *spec => return Ok(Answer::Done),
            Some(id) => id,
            None => {
                let id = ConfigId::new(self.row.next_config);
                self.row.next_config += 1;
                self.journal.changed.insert(RowKey::Pool);
                // Machines may bear its number already, where an older store has been put back.
                let orphans = self.providers.values().flat_map(|provider| provider.orphans.values());
                let orphans = orphans.filter(|orphan| orphan.config == id).count();
                let orphans = u32::try_from(orphans).unwrap_or(u32::MAX);
                self.configs.insert(id, Config { orphans, ..Config::new(id) });
                id
            }
        };
        let Some(config) = self.configs.get_mut(&id) else { return Ok(Answer::Done) };
        let was_on = config.editions.contains_key(&config.current) && config.is_on();
        let old = config.current;
        if config.editions.get(&old).is_some_and(|edition| edition.servers == 0) {
            config.editions.remove(&old);
            self.journal.changed.insert(RowKey::Config(id, old));
        }
        config.current = old + 1;
        let name = spec.name.clone();
        config.editions.insert(config.current, Edition { spec: Arc::new(*spec), servers: 0 });
        // What failed under the old settings may work under the new ones.
        config.memory.create = None;
        config.memory.directory = None;
        config.memory.boot = None;
        config.memory.fates = Fates::default();
        self.journal.changed.insert(RowKey::Config(id, old + 1));
        self.journal.changed.insert(RowKey::Memory(id));
        let is_on = config.is_on();
        // But a shortage that others know of is no less of one.
        self.inherit_shortage(id);
        self.event(What::ConfigSet { config: name, generation: old + 1 });
        self.retry_unenrolling(id);
        // Servers keep what they were born with; only whether there are to be any concerns them.
        if is_on != was_on {
            self.touch_servers_of(id);
        }
        Ok(Answer::Done)
    }

    fn remove_config(&mut self, name: &ConfigName) -> Outcome {
        let id = self.config_named(name).ok_or_else(|| Refusal::UnknownConfig { name: name.clone() })?;
        if let Some(config) = self.configs.get_mut(&id) {
            config.removed = true;
            self.journal.changed.insert(RowKey::Config(id, config.current));
        }
        self.event(What::ConfigRemoved { config: name.clone() });
        self.touch_servers_of(id);
        Ok(Answer::Done)
    }

    fn touch_servers_of(&mut self, config: ConfigId) {
        let of_config = self.servers.values().filter(|server| server.config == config).map(|server| server.id);
        self.journal.touched.extend(of_config);
    }

    fn request_session(&mut self, request: SessionRequest) -> Outcome {
        if let Some(known) =
            request.key.as_ref().and_then(|key| self.by_key.get(key)).and_then(|id| self.sessions.get(id))
        {
            let same = known.user == request.user && known.zone == request.zone;
            return if same {
                Ok(Answer::Session(known.id))
            } else {
                Err(Refusal::KeyReused { user: known.user.clone() })
            };
        }
        if let Some(open) = self.open_by_user.get(&request.user) {
            return Ok(Answer::Session(*open));
        }
        if !self.configs.values().any(Config::is_on) {
            return Err(Refusal::NothingToServe);
        }
        // Those who wait come first, also for what has become free in this very step.
        self.place_queue();
        let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        if waiting >= self.row.spec.queue_max && self.best_server(request.zone.as_ref()).is_none() {
            return Err(Refusal::QueueFull { waiting, max: self.row.spec.queue_max });
        }
        let id = SessionId::new(self.row.next_session);
        self.row.next_session += 1;
        self.journal.changed.insert(RowKey::Pool);
        self.journal.changed.insert(RowKey::Session(id));
        self.insert_session(Session {
            id,
            user: request.user.clone(),
            zone: request.zone,
            key: request.key,
            requested_at: self.now,
            state: SessionState::Waiting { deadline: self.now + self.row.spec.queue_deadline },
        });
        self.place_queue();
        if self.queue.contains(&id) {
            self.event(What::SessionQueued { session: id, user: request.user });
        }
        Ok(Answer::Session(id))
    }

    fn open_session(&self, id: SessionId) -> Result<&Session, Refusal> {
        let session = self.sessions.get(&id).ok_or(Refusal::UnknownSession { session: id })?;
        if session.is_open() { Ok(session) } else { Err(Refusal::SessionEnded { session: id }) }
    }

    fn end_asked(&mut self, id: SessionId) -> Outcome {
        self.open_session(id)?;
        self.end_session(id, EndReason::Requested);
        Ok(Answer::Session(id))
    }

    fn keep_alive(&mut self, id: SessionId) -> Outcome {
        self.open_session(id)?;
        let kept_until = self.now + self.row.spec.keepalive_expiry;
        self.edit_session(id, |session| {
            if let SessionState::Active { expires_at, .. } = &mut session.state
                && !planted!("keepalive-ignored")
            {
                *expires_at = kept_until;
            }
        });
        Ok(Answer::Session(id))
    }

    pub(crate) fn end_session(&mut self, id: SessionId, why: EndReason) {
        let at = self.now;
        self.edit_session(id, |session| session.state = SessionState::Ended { at, why });
        self.event(What::SessionOver { session: id, why });
    }

    pub(crate) fn end_sessions_on(&mut self, server: ServerId, why: EndReason) {
        for session in self.sessions_on(server) {
            self.end_session(session, why);
        }
    }

    fn check_in(&mut self, id: ServerId, status: &str, message: &str, progress: u8) -> Outcome {
        let server = self.servers.get(&id).ok_or(Refusal::UnknownServer { server: id })?;
        if server.phase.kind().is_going() {
            return Err(Refusal::CheckInTooLate { server: id });
        }
        let shorten = |text: &str| -> String { text.chars().take(TEXT_CHARS_MAX).collect() };
        let check_in =
            CheckIn { at: self.now, status: shorten(status), message: shorten(message), progress: progress.min(100) };
        // A machine that has said it runs does not unsay it by a late progress message.
        let settled = server.has_checked_in() && check_in.status != CheckIn::RUNNING;
        if !settled && planted!("check-in-not-written") {
            self.edit_unstored(id, |server| server.check_in = Some(check_in));
        } else if !settled {
            self.edit_server(id, |server| server.check_in = Some(check_in));
        }
        Ok(Answer::Done)
    }

    fn drain_asked(&mut self, id: ServerId) -> Outcome {
        let server = self.servers.get(&id).ok_or(Refusal::UnknownServer { server: id })?;
        let now = self.now;
        let why = DrainReason::Operator;
        match server.phase {
            Phase::Deleting { .. } | Phase::Unenrolling { .. } => return Err(Refusal::AlreadyDeleting { server: id }),
            // A server that nobody can be on has nothing to drain.
            Phase::Enrolling { .. } | Phase::Creating { .. } | Phase::Starting { .. } => {
                self.delete_server(id, DeleteReason::Operator)
            }
            Phase::Ready { .. } => {
                self.enter_phase(id, Phase::Draining { since: now, why }, Some(alloc::format!("{why}")))
            }
            Phase::Draining { since, .. } => {
                self.edit_server(id, |server| server.phase = Phase::Draining { since, why })
            }
        }
        Ok(Answer::Done)
    }

    fn undrain_asked(&mut self, id: ServerId) -> Outcome {
        let server = self.servers.get(&id).ok_or(Refusal::UnknownServer { server: id })?;
        match server.phase {
            Phase::Draining { why: DrainReason::Operator, .. } => {
                let since = self.now;
                self.enter_phase(id, Phase::Ready { since }, Some("drain taken back by an operator".into()));
                Ok(Answer::Done)
            }
            Phase::Deleting { .. } | Phase::Unenrolling { .. } => Err(Refusal::AlreadyDeleting { server: id }),
            _ => Err(Refusal::NotDraining { server: id }),
        }
    }

    fn delete_asked(&mut self, id: ServerId, force: bool) -> Outcome {
        let server = self.servers.get(&id).ok_or(Refusal::UnknownServer { server: id })?;
        let sessions = server.sessions;
        if self.is_kept(id) || self.is_held_back(id) {
            self.delete_now(id);
            return Ok(Answer::Done);
        }
        if server.phase.kind().is_going() {
            return Err(Refusal::AlreadyDeleting { server: id });
        }
        if sessions > 0 && !force {
            return Err(Refusal::HasSessions { server: id, sessions });
        }
        self.end_sessions_on(id, EndReason::ServerDeleted);
        self.delete_server(id, DeleteReason::Operator);
        Ok(Answer::Done)
    }

    /// What time alone has changed: sessions that expired, records to forget, servers to look at.
    pub(crate) fn expire(&mut self) {
        use crate::state::Timer;
        let due: Vec<Timer> =
            self.timers.iter().take_while(|(at, _)| *at <= self.now).map(|(_, timer)| *timer).collect();
        for timer in due {
            match timer {
                Timer::Server(id) => {
                    self.journal.touched.insert(id);
                }
                Timer::Session(id) => match self.sessions[&id].state {
                    SessionState::Waiting { .. } => self.end_session(id, EndReason::QueueExpired),
                    SessionState::Active { .. } => self.end_session(id, EndReason::KeepaliveExpired),
                    SessionState::Ended { .. } => {
                        self.take_session(id);
                    }
                },
            }
        }
    }
}
