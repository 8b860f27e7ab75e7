//! What the system, or whoever looks after it, tells the process.

use std::io;

use tokio_util::sync::CancellationToken;

/// Whoever asks for a look at the certificate at once: SIGHUP, where there are signals.
#[derive(Debug)]
pub struct Hangups(#[cfg(unix)] tokio::signal::unix::Signal);

impl Hangups {
    /// From now on SIGHUP does not end the process.
    ///
    /// # Errors
    /// When the system does not let us listen.
    pub fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        let hangups = Self(tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?);
        #[cfg(not(unix))]
        let hangups = Self();
        Ok(hangups)
    }

    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if self.0.recv().await.is_some() {
            return;
        }
        std::future::pending().await
    }

    /// Says, until `stop`, that there is nothing to look at: the API speaks no TLS. A service manager's `reload` is no reason to
    /// end.
    pub(crate) async fn decline(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.next() => tracing::info!(
                    "SIGHUP: there is no certificate to look at; the config file is read when the daemon starts"
                ),
            }
        }
    }
}

/// Waits for SIGTERM or Ctrl-C.
#[cfg(unix)]
pub(crate) async fn told_to_stop() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result,
        _ = terminate.recv() => Ok(()),
    }
}

/// Waits for Ctrl-C.
#[cfg(not(unix))]
pub(crate) async fn told_to_stop() -> io::Result<()> {
    tokio::signal::ctrl_c().await
}
