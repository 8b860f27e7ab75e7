//! Active Directory names for the autoscaler: distinguished names, parsed and escaped, and the domain they stand for.
//!
//! Everything that is sent to a directory is built from these types, never from pieces of text: a name is parsed once
//! (RFC 4514), and what it contains or lies under is answered from the parsed form.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod dn;

pub use dn::{Dn, DnError, Rdn};
