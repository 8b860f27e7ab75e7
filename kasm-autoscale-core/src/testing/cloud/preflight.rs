//! What a simulated cloud says when it is asked whether it would make a machine.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Fault, SimCloud};
use crate::ports::{ErrorKind, Finding, ProviderError};
use crate::testing::entropy::{Entropy, MILLION};
use crate::time::Timestamp;

impl<E: Entropy> SimCloud<E> {
    /// What would stand in a create's way now: limits that are reached, and refusals that are certain. Reads only.
    ///
    /// # Errors
    /// As any other read: throttled, or struck by [`Fault::ReadError`].
    pub fn preflight(&mut self, now: Timestamp) -> Result<Vec<Finding>, ProviderError> {
        let now = self.reach(now);
        self.admit_read(now)?;
        let mut findings = Vec::new();
        let finding = |subject: &str, problem: String, remedy: &str| Finding {
            subject: subject.to_owned(),
            problem,
            remedy: remedy.to_owned(),
        };
        if self.settings.faults.rate(Fault::CreateError) >= MILLION {
            // Like a dry run: what is left to chance may go well, but where there is only one answer it is known.
            let sure = self.settings.create_errors.iter().filter(|(_, weight)| **weight > 0).map(|(kind, _)| *kind);
            let kinds: Vec<&str> = sure.map(ErrorKind::as_str).collect();
            let problem = format!("every create is refused ({})", kinds.join(", "));
            let remedy = "lower faults.create_error in the provider's settings below 1000000";
            findings.push(finding("right to create machines", problem, remedy));
        }
        if let Err(error) = self.check_room(now) {
            let (subject, remedy) = match error.kind {
                ErrorKind::Quota => ("quota", "raise quota in the provider's settings, or delete machines"),
                _ => ("capacity", "raise capacity in the provider's settings, or wait until machines are gone"),
            };
            findings.push(finding(subject, error.message, remedy));
        }
        Ok(findings)
    }
}
