//! Active Directory for the autoscaler: computer objects of machines that join a domain, and logins of users, over LDAP.
//!
//! [`ActiveDirectory`] implements the core's [`Directory`](kasm_autoscale_core::ports::Directory) port and
//! [`authenticate`](ActiveDirectory::authenticate)s users. Which rights its account needs, and how to delegate them, is in this
//! crate's `README.md`.
//!
//! - **Nothing is said before the connection is encrypted and verified.** `ldaps://`, or `ldap://` with StartTLS before
//!   anything else; there is no fall-back and no way to switch verification off. Only an encrypted connection has the
//!   operations that carry passwords.
//! - **Names and filters are never put together from pieces of text.** A name is parsed once (RFC 4514), a filter too
//!   (RFC 4515), and what goes into them is escaped when they are written.
//! - **What a server sends is looked at before it is parsed**: its size and its nesting have limits. Every conversation is a task of
//!   its own, so that a parser that panics is a failed call. Referrals are never followed.
//! - **Only what bears our mark is touched**, only below one base, and it is deleted by its GUID.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod ber;
mod computers;
mod conversation;
mod delete;
mod directory;
mod dn;
mod errors;
mod filter;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod mark;
mod preflight;
mod settings;
mod transport;
mod users;

pub use directory::ActiveDirectory;
pub use dn::{Dn, DnError, Rdn};
pub use filter::{Filter, FilterError};
pub use settings::{LdapSettings, LdapUrl, Scheme};
pub use users::{AdUser, AuthError, Refusal};
