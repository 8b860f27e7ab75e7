//! The files as they lie there, before anybody looks at what is in them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use super::TlsSettings;
use crate::secrets::{Environment, SecretError};

/// The longest a file of certificates may be, in bytes: some hundred of them.
pub(super) const CERTIFICATES_BYTES_MAX: u64 = 256 * 1024;

/// A file of certificates, or why it cannot be read.
pub(super) type Content = Result<Vec<u8>, String>;

/// What lies there.
pub(super) struct Files {
    pub(super) certificate: Content,
    pub(super) key: Result<SecretString, SecretError>,
    pub(super) authorities: Option<Content>,
}

impl Files {
    pub(super) fn read(settings: &TlsSettings, environment: &Environment) -> Self {
        Self {
            certificate: read(&settings.certificate),
            key: settings.key.resolve(environment),
            authorities: settings.clients.as_ref().map(|clients| read(&clients.authorities)),
        }
    }

    /// Tells one content from another, whatever the files are called and wherever links lead.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |kind: u8, bytes: &[u8]| {
            hash.update([kind]);
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        };
        for file in [Some(&self.certificate), self.authorities.as_ref()] {
            match file {
                Some(Ok(bytes)) => add(0, bytes),
                Some(Err(fault)) => add(1, fault.as_bytes()),
                None => add(2, &[]),
            }
        }
        match &self.key {
            Ok(key) => add(0, key.expose_secret().as_bytes()),
            Err(error) => add(1, error.remedy().as_bytes()),
        }
        hash.finalize().into()
    }
}

/// Reads a regular file of certificates. They are public: anybody may read the file.
fn read(path: &Path) -> Content {
    let told = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        kind => format!("it cannot be read by the daemon's user: {kind}"),
    };
    // Before it is opened: to open a pipe would wait for a writer.
    if !fs::metadata(path).map_err(told)?.is_file() {
        return Err("it is no regular file".into());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(told)?.take(CERTIFICATES_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(told)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= CERTIFICATES_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(format!("it has more than {CERTIFICATES_BYTES_MAX} bytes"))
    }
}
