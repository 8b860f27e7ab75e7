//! The API over TLS: handshakes, client certificates, renewal while it runs, and what is said of files that are no good.
//! Certificates are made here; clients are rustls, curl and OpenSSL, all on loopback.

#[path = "../api/client.rs"]
#[allow(dead_code, reason = "the tests of the API use all of it")]
mod client;
#[path = "../../../tests/support/real.rs"]
mod real;

mod authority;
mod clients;
mod handshakes;
mod mistakes;
mod peer;
mod process;
mod reload;
mod stage;
