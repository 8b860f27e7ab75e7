//! A host's life in a world: steps, saves, commands on their way, crashes and returns.

use alloc::format;
use alloc::string::String;
use core::time::Duration;

use super::super::entropy::{Entropy, MILLION};
use super::super::lock::locked;
use super::host::Purpose;
use super::people::Stage;
use super::weather::Trouble;
use super::{Broken, Due, Note, Sound, World, expect};
use crate::command::{Action, Command, Outcome};
use crate::id::{CommandId, ServerId};
use crate::input::{Answer, Fact, Refusal, Ticket};
use crate::row::Outputs;
use crate::server::CheckIn;
use crate::time::Timestamp;

impl World {
    pub(super) fn introduce_providers(&mut self, pool: usize) {
        for cloud in &self.sky.clouds {
            let cloud = locked(cloud);
            let fact = Fact::ProviderKnown(cloud.name.clone(), cloud.capabilities.clone());
            self.hosts[pool].mailbox.push(fact.into());
        }
        for domain in &self.sky.domains {
            let domain = locked(domain);
            let fact = Fact::DirectoryKnown(domain.name.clone(), domain.facts());
            self.hosts[pool].mailbox.push(fact.into());
        }
    }

    /// The daemon's order: all facts that have arrived, one step, save, and only then let go.
    pub(super) fn step(&mut self, index: usize) -> Sound {
        let host = &mut self.hosts[index];
        let clock = host.clock(self.now);
        let inputs = core::mem::take(&mut host.mailbox);
        let was_asked = !inputs.is_empty();
        let Some(pool) = &mut host.pool else { return Ok(()) };
        host.expiry_before = pool.spec().keepalive_expiry;
        let batch = pool.step(clock, inputs);
        self.figures.steps += 1;
        if let Err(violations) = pool.check() {
            let found = violations.iter().map(|violation| format!("{violation}\n")).collect();
            return Err(Broken { invariant: "check()", found });
        }
        if self.strikes(Trouble::CrashBeforeSave) {
            drop(batch);
            self.note(index, Note::Word("the host dies before it has saved"));
            self.dies(index)?;
            return Ok(());
        }
        // Where there is nothing to save, nothing is saved.
        let is_saved = !batch.writes().is_empty() || !batch.events().is_empty();
        if is_saved && self.save_fails(index, Trouble::SaveRefused) {
            drop(batch);
            self.note(index, Note::Word("the save fails"));
            return self.reads_anew(index);
        }
        let host = &mut self.hosts[index];
        host.save(batch.writes());
        let unclear = is_saved && self.save_fails(index, Trouble::SaveUnclear);
        let writes = batch.writes().len() as u64;
        let outputs = batch.saved();
        self.digest(index, clock, writes, &outputs);
        self.judge_events(index, &outputs)?;
        if unclear {
            self.note(index, Note::Word("the save is said to have failed"));
            return self.reads_anew(index);
        }
        if self.strikes(Trouble::CrashAfterSave) {
            self.note(index, Note::Word("the host dies after it has saved"));
            return self.dies(index);
        }
        self.judge_commands(index, &outputs)?;
        self.hurries(index, was_asked, outputs.wake_at)?;
        self.judge_rows(index)?;
        self.judge_settled(index, outputs.wake_at)?;
        self.judge_by_the_text(index)?;
        self.hosts[index].wake_at = outputs.wake_at;
        for (ticket, answer) in outputs.answers {
            self.hears(index, ticket, &answer)?;
        }
        for command in outputs.commands {
            self.leaves(index, command);
        }
        if self.strikes(Trouble::CrashAfterRelease) {
            self.note(index, Note::Word("the host dies"));
            return self.dies(index);
        }
        Ok(())
    }

    fn save_fails(&mut self, index: usize, trouble: Trouble) -> bool {
        let rate = self.rate(trouble);
        let is_shaky = rate > 0 && self.now < self.hosts[index].shaky_until;
        let fails = self.trouble.chance(if is_shaky { MILLION / 8 } else { rate });
        if fails {
            self.figures.struck(trouble.as_str());
            if !is_shaky {
                self.hosts[index].shaky_until = self.now + Duration::from_secs(self.net.range(1..=300));
            }
        }
        fails
    }

    fn digest(&mut self, index: usize, clock: Timestamp, writes: u64, outputs: &Outputs) {
        let trace = &mut self.trace;
        for number in
            [index as u64, clock.as_millis(), writes, outputs.events.len() as u64, outputs.answers.len() as u64]
        {
            trace.add(number);
        }
        for command in &outputs.commands {
            trace.add(command.id.serial());
            trace.add(command.action.verb().len() as u64);
        }
        trace.add(outputs.wake_at.map_or(0, Timestamp::as_millis));
    }

    /// A pool that asks to be woken at once, again and again, has lost its way.
    fn hurries(&mut self, index: usize, was_asked: bool, wake_at: Option<Timestamp>) -> Sound {
        let now = self.now;
        let host = &mut self.hosts[index];
        let at_once = wake_at.is_some_and(|at| at <= host.clock(now)) && !was_asked;
        let (at, count) = host.hurried;
        host.hurried = if at_once && at == now { (at, count + 1) } else { (now, 0) };
        let report = || format!("woken at {now} again and again: {:#?}", host.pool.as_ref().map(|pool| pool.report()));
        expect(host.hurried.1 < 20, "I-17 a step that decides nothing is not asked for again", report)
    }

    // --- answers ---

    fn hears(&mut self, index: usize, ticket: Ticket, answer: &Answer) -> Sound {
        let clock = self.hosts[index].clock(self.now);
        let Some(purpose) = self.hosts[index].tickets.remove(&ticket) else { return Ok(()) };
        if let Answer::Refused(refusal) = answer {
            self.figures.saw(refusal_word(refusal));
        }
        match (purpose, answer) {
            (Purpose::Request { user }, Answer::Session(session)) => {
                let known = self.hosts[index].pool.as_ref().and_then(|pool| pool.session(*session));
                expect(known.is_some(), "I-31 a session that is answered for is there", || format!("{session}"))?;
                self.user_holds(index, user, *session);
            }
            (Purpose::Request { user }, Answer::Refused(_)) => {
                let user = &mut self.hosts[index].users[user];
                if matches!(user.stage, Stage::Asking { .. }) {
                    user.stage = Stage::Away;
                }
            }
            (Purpose::KeepAlive { session, .. }, Answer::Session(_)) => {
                let host = &mut self.hosts[index];
                let expiry = host.keepalive_expiry();
                if let Some(seat) = host.ledger.seats.get_mut(&session) {
                    seat.alive_until = clock + expiry;
                }
            }
            (Purpose::KeepAlive { user, session }, Answer::Refused(refusal)) => {
                let over = self.hosts[index].ledger.over.contains_key(&session);
                expect(over, "I-31 a session that was answered for is not forgotten", || {
                    format!("{session}: {refusal}")
                })?;
                self.user_leaves(index, user, session);
            }
            (Purpose::End { user, session }, _) => self.user_leaves(index, user, session),
            _ => {}
        }
        Ok(())
    }

    fn user_leaves(&mut self, index: usize, user: usize, left: crate::id::SessionId) {
        let user = &mut self.hosts[index].users[user];
        if matches!(user.stage, Stage::Holding { session, .. } if session == left) {
            user.stage = Stage::Away;
        }
    }

    // --- commands ---

    fn leaves(&mut self, index: usize, command: Command) {
        let what = match &command.action {
            Action::Create(create) => format!("{}", create.server.server),
            Action::Find { server, .. } => format!("{}", server.server),
            Action::Delete { machine, .. } => format!("{machine}"),
            Action::Poll { op, .. } => format!("{op}"),
            Action::List { provider } => format!("{provider}"),
            Action::Probe { target } => target.host.clone(),
            Action::Enroll(enroll) => format!("{}", enroll.server.server),
            Action::FindComputer { server, .. } => format!("{}", server.server),
            Action::CheckJoin { computer, .. } | Action::Unenroll { computer, .. } => format!("{computer}"),
            Action::ListComputers { directory } => format!("{directory}"),
        };
        self.note(index, Note::Sent(command.id, command.action.verb(), what));
        let usual = self.net.range(1..=800);
        let way = if self.strikes(Trouble::CallSlow) {
            self.net.duration(&(Duration::ZERO..=command.timeout))
        } else {
            Duration::from_millis(usual)
        };
        let process = self.hosts[index].process;
        self.at(self.now + way, Due::Arrives { pool: index, process, command });
    }

    pub(super) fn arrives(&mut self, index: usize, process: u64, command: &Command) -> Sound {
        let given_up_at = self.given_up_at(index, command);
        let outcome = self.performed(index, command)?;
        let slow = self.strikes(Trouble::AnswerSlow);
        let forgotten = self.strikes(Trouble::AnswerForgotten);
        let way = if slow { self.net.range(1..=900_000) } else { self.net.range(1..=3000) };
        let answered_at = self.now + Duration::from_millis(way);
        let (pool, id) = (index, command.id);
        match outcome {
            _ if forgotten => {}
            Some(outcome) if answered_at < given_up_at => {
                if self.strikes(Trouble::AnswerTwice) {
                    let again = answered_at + Duration::from_millis(self.net.range(0..=600_000));
                    self.at(again, Due::Answered { pool, process, id, outcome: outcome.clone() });
                }
                self.at(answered_at, Due::Answered { pool, process, id, outcome });
            }
            _ => self.at(given_up_at, Due::Answered { pool, process, id, outcome: Outcome::Lost }),
        }
        Ok(())
    }

    /// When the host stops waiting for a command that arrives now. Creates are kept in the ledger; of the others it is known
    /// well enough.
    fn given_up_at(&self, index: usize, command: &Command) -> Timestamp {
        let asked = match &command.action {
            Action::Create(create) => self.hosts[index].ledger.asked.get(&create.server.server),
            _ => None,
        };
        asked.map_or(self.now + command.timeout, |asked| asked.given_up_at)
    }

    /// What a command does in the world.
    fn performed(&mut self, index: usize, command: &Command) -> Result<Option<Outcome>, Broken> {
        self.figures.commands += 1;
        self.domains_will_act(index, command);
        let outcome = self.sky.perform(self.now, self.hosts[index].id, command);
        for number in 0..self.sky.clouds.len() {
            let mut cloud = locked(&self.sky.clouds[number]);
            for what in cloud.struck.drain(..) {
                *self.figures.faults.entry(what).or_default() += 1;
            }
            let lied = core::mem::take(&mut cloud.lied_about);
            drop(cloud);
            for machine in lied {
                for host in &mut self.hosts {
                    host.ledger.lied_about(number, &machine);
                }
            }
        }
        self.judge_deletions(index)?;
        if command.action.directory().is_some() {
            self.domains_have_acted(index)?;
        }
        if let Action::Create(create) = &command.action {
            let made = self.hosts[index].ledger.note_machines(&self.sky, create.server);
            self.figures.machines += made;
            // Its row was given up as absent while the request could still have its effect.
            let ledger = &self.hosts[index].ledger;
            let in_time = ledger.asked.get(&create.server.server).is_some_and(|asked| self.now <= asked.given_up_at);
            let early = made > 0 && in_time && !ledger.phases.contains_key(&create.server.server);
            expect(!early, "I-23 absence is not concluded while the request is under way", || {
                format!("{} was gone before its create had run out of time", create.server.server)
            })?;
            if made > 0 {
                self.guest_will_speak(index, create.server);
                if create.spec.domain_join.is_some() {
                    self.guest_will_join(index, create.server)?;
                }
            }
        }
        Ok(outcome)
    }

    pub(super) fn answered(&mut self, index: usize, process: u64, id: CommandId, outcome: Outcome) {
        let host = &mut self.hosts[index];
        if host.process == process && host.pool.is_some() {
            let word = outcome.word();
            host.mailbox.push(Fact::Finished(id, outcome).into());
            self.note(index, Note::Heard(id, word));
        }
    }

    // --- guests ---

    fn guest_will_speak(&mut self, index: usize, key: crate::id::ServerKey) {
        let Some(asked) = self.hosts[index].ledger.asked.get(&key.server).copied() else { return };
        let booted = {
            let cloud = locked(&self.sky.clouds[asked.cloud]);
            cloud.sim.machines_of(&key.uuid()).filter_map(|machine| machine.booted_at).min()
        };
        let Some(booted) = booted else { return };
        let late = self.strikes(Trouble::GuestLate);
        let script = Duration::from_secs(if late { self.net.range(60..=7200) } else { self.net.range(1..=90) });
        self.at(booted + script, Due::GuestSpeaks { pool: index, server: key.server });
        if self.strikes(Trouble::GuestRepeats) {
            let again = script + Duration::from_secs(self.net.range(1..=7200));
            self.at(booted + again, Due::GuestSpeaks { pool: index, server: key.server });
        }
    }

    pub(super) fn guest_speaks(&mut self, index: usize, server: ServerId) {
        let runs = self.net.chance(900_000);
        let host = &mut self.hosts[index];
        if host.pool.is_none() {
            // It tries again until it is heard.
            self.at(self.now + Duration::from_secs(30), Due::GuestSpeaks { pool: index, server });
            return;
        }
        let status = if runs { CheckIn::RUNNING } else { "starting" };
        if runs {
            host.ledger.spoken.insert(server);
        } else {
            self.at(self.now + Duration::from_secs(30), Due::GuestSpeaks { pool: index, server });
        }
        let fact = Fact::CheckedIn {
            server,
            status: status.into(),
            message: String::new(),
            progress: if runs { 100 } else { 50 },
        };
        self.hosts[index].ask(fact, Purpose::Other);
    }

    // --- dying ---

    /// The process is gone: what it had in mind, what it was about to say, and what it would have heard. Calls under way get
    /// there or not.
    fn dies(&mut self, index: usize) -> Sound {
        self.leaves_unanswered(index);
        let host = &mut self.hosts[index];
        host.pool = None;
        host.mailbox.clear();
        host.wake_at = None;
        host.process += 1;
        let of_host =
            |due: &Due| matches!(due, Due::Arrives { pool, .. } | Due::Answered { pool, .. } if *pool == index);
        let all = core::mem::take(&mut self.due);
        for (at, due) in all {
            match due {
                other if !of_host(&other) => {
                    self.due.insert(at, other);
                }
                Due::Arrives { command, .. } if self.net.chance(MILLION / 2) => {
                    self.performed(index, &command)?;
                }
                _ => {}
            }
        }
        let away = if self.strikes(Trouble::Downtime) { self.net.range(600..=14_400) } else { self.net.range(1..=60) };
        self.at(self.now + Duration::from_secs(away), Due::Returns { pool: index });
        Ok(())
    }

    /// A process reads the clock once, when it starts, and counts on from there: that nothing has been seen for so long is a
    /// proof of absence only if so much time has passed.
    pub(super) fn clock_is_right(&mut self, index: usize) -> Sound {
        let host = &mut self.hosts[index];
        if host.behind.is_zero() {
            return Ok(());
        }
        host.behind = Duration::ZERO;
        if host.pool.is_none() {
            return Ok(());
        }
        self.note(index, Note::Word("the host starts anew, its clock is right again"));
        self.dies(index)
    }

    pub(super) fn returns(&mut self, index: usize) -> Sound {
        if self.hosts[index].pool.is_some() {
            return Ok(());
        }
        self.note(index, Note::Word("the host is back"));
        self.comes_back(index)
    }

    /// Nobody hears any more what came of what was asked. A keep-alive may have been saved all the same, and count for less time
    /// than the one before, if the pool's settings were changed between them.
    fn leaves_unanswered(&mut self, index: usize) {
        let clock = self.hosts[index].clock(self.now);
        let host = &mut self.hosts[index];
        let until = clock + host.keepalive_expiry();
        for purpose in core::mem::take(&mut host.tickets).into_values() {
            if let Purpose::KeepAlive { session, .. } = purpose
                && let Some(seat) = host.ledger.seats.get_mut(&session)
            {
                seat.alive_until = seat.alive_until.min(until);
            }
        }
    }

    /// The process lives on, but does not know what is stored: it reads the pool anew. Its calls go on, and their outcomes
    /// come to the new pool.
    fn reads_anew(&mut self, index: usize) -> Sound {
        self.leaves_unanswered(index);
        self.hosts[index].waits_for_its_store(self.now);
        self.comes_back(index)
    }

    fn comes_back(&mut self, index: usize) -> Sound {
        self.figures.restores += 1;
        let host = &mut self.hosts[index];
        let pool = host.restored(self.now);
        let pool =
            pool.map_err(|found| Broken { invariant: "I-30 a restored pool is the one that was saved", found })?;
        if let Err(violations) = pool.check() {
            return Err(Broken { invariant: "I-30 a restored pool adds up", found: format!("{violations:?}") });
        }
        host.pool = Some(pool);
        host.wake_at = Some(host.clock(self.now));
        self.introduce_providers(index);
        Ok(())
    }
}

fn refusal_word(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::UnknownConfig { .. } => "refusal: unknown config",
        Refusal::UnknownServer { .. } => "refusal: unknown server",
        Refusal::UnknownSession { .. } => "refusal: unknown session",
        Refusal::SessionEnded { .. } => "refusal: session ended",
        Refusal::QueueFull { .. } => "refusal: queue full",
        Refusal::NothingToServe => "refusal: nothing to serve",
        Refusal::KeyReused { .. } => "refusal: key reused",
        Refusal::HasSessions { .. } => "refusal: has sessions",
        Refusal::AlreadyDeleting { .. } => "refusal: already deleting",
        Refusal::NotDraining { .. } => "refusal: not draining",
        Refusal::NotFrozen { .. } => "refusal: not frozen",
        Refusal::StillBroken { .. } => "refusal: still broken",
        Refusal::NoMassLoss { .. } => "refusal: no mass loss",
        Refusal::CheckInTooLate { .. } => "refusal: check-in too late",
    }
}
