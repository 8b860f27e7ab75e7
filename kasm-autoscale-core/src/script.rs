//! Placeholder while the real one is written beside.
use alloc::{string::String, vec::Vec, collections::BTreeSet, collections::BTreeMap};
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable { ConnectionUsername, ConnectionPassword, AdJoinCredential, Domain, ServerId, ServerHostname, CheckinJwt, UpstreamAuthAddress, ProviderName }
impl Variable { pub fn name(&self) -> &'static str { "x" } }
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script(String);
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError { pub line: usize, pub column: usize }
impl core::fmt::Display for ScriptError { fn fmt(&self, _: &mut core::fmt::Formatter<'_>) -> core::fmt::Result { Ok(()) } }
impl Script {
  pub fn parse(t: &str) -> Result<Self, Vec<ScriptError>> { Ok(Self(t.into())) }
  pub fn source(&self) -> &str { &self.0 }
  pub fn variables(&self) -> BTreeSet<Variable> { BTreeSet::new() }
  pub fn render(&self, _v: &BTreeMap<Variable, secrecy::SecretString>) -> Result<secrecy::SecretString, ScriptError> { Ok(self.0.clone().into()) }
}
