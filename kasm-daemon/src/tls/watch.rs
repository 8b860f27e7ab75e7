//! Looks at the files while the daemon runs, and puts to use what is new and good.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kasm_autoscale_core::fields::Problem;
use kasm_autoscale_core::time::Timestamp;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::files::Files;
use super::material::Material;
use super::{ENDS_SOON, Live, Tls};
use crate::clock::rfc3339;
use crate::signals::Hangups;

/// How often the log says that the certificate ends soon.
const REMIND_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What earlier looks have found.
struct Memory {
    /// What could not be used at the last look.
    unusable: Option<[u8; 32]>,
    /// What has been refused.
    refused: Option<[u8; 32]>,
    reminded_at: Timestamp,
}

/// Looks at the files every so often, and whenever somebody asks, until `stop`. Files count by what is in them, wherever links
/// lead: whole folders may be exchanged.
///
/// What can be used is used from the next connection on; connections that there are go on as they are. Certificate and key
/// are often written one after the other, so what cannot be used is refused only if it is the same at the next look, or when
/// somebody has asked. Then the old ones go on, and log and metrics say so until it is mended.
pub async fn follow(tls: Arc<Tls>, every: Duration, mut hangups: Hangups, stop: CancellationToken) {
    let mut memory = Memory { unusable: None, refused: None, reminded_at: tls.clock.now() };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => false,
            () = hangups.next() => true,
        };
        // Files may lie on a disk that is slow to answer.
        let reader = Arc::clone(&tls);
        let look = tokio::task::spawn_blocking(move || reader.look());
        // It does not panic; if it did, the certificate in use would go on.
        if let Ok(found) = look.await {
            tls.settle(found, asked, &mut memory);
        }
        tls.remind(&mut memory);
    }
}

/// What lies in the files.
enum Found {
    /// What is in use.
    Same,
    /// Something else, which can be used.
    New(Live, Vec<Problem>),
    /// Something else, which cannot.
    Unusable([u8; 32], Vec<Problem>),
}

impl Tls {
    fn look(&self) -> Found {
        let files = Files::read(&self.settings, &self.environment);
        let digest = files.digest();
        if digest == self.live().digest {
            return Found::Same;
        }
        let now = self.clock.now();
        match Material::of(&self.settings, &files, now) {
            // Better an old one that is good than a new one that is not, or not yet.
            Ok(Material { facts, warnings, .. }) if !facts.is_timely(now) && self.live().facts.is_timely(now) => {
                Found::Unusable(digest, warnings)
            }
            Ok(Material { config, facts, warnings }) => Found::New(Live { config, facts, digest }, warnings),
            Err(problems) => Found::Unusable(digest, problems),
        }
    }

    fn settle(&self, found: Found, asked: bool, memory: &mut Memory) {
        match found {
            Found::Same => {
                (memory.unusable, memory.refused) = (None, None);
                let facts = self.live().facts;
                self.counts.in_use(facts.ends);
                if asked {
                    tracing::info!(%facts, "asked to look at the certificate: nothing has changed");
                }
            }
            Found::New(live, warnings) => {
                (memory.unusable, memory.refused) = (None, None);
                tracing::info!(facts = %live.facts, "new connections are served with a new certificate, key or client CA");
                for warning in warnings {
                    tracing::warn!("{}", warning.below("tls"));
                }
                self.counts.in_use(live.facts.ends);
                self.counts.taken();
                *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
            }
            Found::Unusable(digest, problems) => {
                let settled = asked || memory.unusable == Some(digest);
                memory.unusable = Some(digest);
                if settled && memory.refused != Some(digest) {
                    memory.refused = Some(digest);
                    self.counts.refused();
                    let problems = problems.into_iter().map(|problem| problem.below("tls").to_string());
                    let problems = problems.collect::<Vec<_>>().join("; ");
                    tracing::error!(%problems, in_use = %self.live().facts, "the new certificate, key or client CA is refused; the old ones go on");
                }
            }
        }
    }

    /// Says once a day that the certificate ends soon, or has ended.
    fn remind(&self, memory: &mut Memory) {
        let (now, ends) = (self.clock.now(), self.live().facts.ends);
        if !is_worth_a_reminder(ends, now, memory.reminded_at) {
            return;
        }
        memory.reminded_at = now;
        let until = rfc3339(ends);
        if ends < now {
            tracing::error!(%until, "the certificate of the API has expired: clients refuse it");
        } else {
            tracing::warn!(%until, "the certificate of the API expires soon; put a new one in its place");
        }
    }
}

fn is_worth_a_reminder(ends: Timestamp, now: Timestamp, reminded_at: Timestamp) -> bool {
    ends.since(now) < ENDS_SOON && now.since(reminded_at) >= REMIND_EVERY
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};

    use super::super::TlsSettings;
    use super::*;
    use crate::clock::Clock;
    use crate::metrics::Metrics;
    use crate::secrets::{Environment, SecretSource};

    fn write(folder: &Path, name: &str, content: &str) {
        fs::write(folder.join(name), content).unwrap();
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o600)).unwrap();
    }

    fn made() -> CertifiedKey<KeyPair> {
        generate_simple_self_signed(["kasm.example".to_owned()]).unwrap()
    }

    #[test]
    fn once_a_day_the_log_says_that_the_end_is_near() {
        let day = |day: u64| Timestamp::from_secs(day * 24 * 3600);
        let ends = day(100);
        assert!(!is_worth_a_reminder(ends, day(86), day(0)), "14 days are enough");
        assert!(is_worth_a_reminder(ends, day(87), day(86)));
        assert!(!is_worth_a_reminder(ends, day(87) + Duration::from_secs(3600), day(87)));
        assert!(is_worth_a_reminder(ends, day(200), day(199)), "all the more when it is over");
    }

    #[test]
    fn s_19_what_is_half_written_is_not_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let write_key = |made: &CertifiedKey<KeyPair>| write(path, "key", &made.signing_key.serialize_pem());
        let write_certificate = |made: &CertifiedKey<KeyPair>| write(path, "certificate", &made.cert.pem());
        let (first, second, third) = (made(), made(), made());
        write_certificate(&first);
        write_key(&first);
        let settings = TlsSettings {
            certificate: path.join("certificate"),
            key: SecretSource::File(path.join("key")),
            clients: None,
        };
        let metrics = Metrics::default();
        let tls = Tls::load(settings, &Environment::of([("X", "x")]), Clock::start(), &metrics).unwrap();
        let mut memory = Memory { unusable: None, refused: None, reminded_at: tls.clock.now() };
        let mut look = |asked: bool| tls.settle(tls.look(), asked, &mut memory);
        let told = |taken: u32, refused: u32, alarm: u32| {
            let text = metrics.text(&[]);
            for (name, value) in [
                ("reloads_total{outcome=\"taken\"}", taken),
                ("reloads_total{outcome=\"refused\"}", refused),
                ("refused{certificate=\"api\"}", alarm),
            ] {
                let line = format!("kasm_autoscale_certificate_{name} {value}\n");
                assert!(text.contains(&line), "{line}{text}");
            }
        };
        look(false);
        told(0, 0, 0);
        // The pair is looked at while only the half of it is there; then it is whole.
        write_certificate(&second);
        look(false);
        told(0, 0, 0);
        write_key(&second);
        look(false);
        told(1, 0, 0);
        // What stays as it is will not become better.
        write_certificate(&third);
        look(false);
        look(false);
        told(1, 1, 1);
        look(false);
        look(true);
        told(1, 1, 1);
        // Whoever asks is told at once.
        write_certificate(&first);
        look(true);
        told(1, 2, 1);
        write_certificate(&second);
        look(false);
        told(1, 2, 0);
        // The same mistake once more is a mistake once more.
        write_certificate(&third);
        look(false);
        told(1, 2, 0);
        look(false);
        told(1, 3, 1);
    }
}
