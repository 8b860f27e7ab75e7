//! Certificate authorities of tests, and what they issue.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

/// Who is trusted, or not.
pub(crate) struct Authority {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) }
    }

    /// A certificate of the API on this machine, with this number.
    pub(crate) fn server(&self, serial: u64) -> Identity {
        self.issue(|params| params.serial_number = Some(SerialNumber::from(serial)))
    }

    /// A certificate that is good for the API but for these changes.
    pub(crate) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        self.sign(server(), KeyPair::generate().expect("a key"), change)
    }

    /// As [`issue`](Self::issue), for the key of this one.
    pub(crate) fn renew(&self, identity: &Identity, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::from_pem(&identity.key.serialize_pem()).expect("a key");
        self.sign(server(), key, change)
    }

    /// A certificate of a client.
    pub(crate) fn client(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "portal");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params, KeyPair::generate().expect("a key"), change)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { pem: certificate.pem(), der: certificate.der().clone(), key }
    }
}

fn server() -> CertificateParams {
    let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("names");
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

/// Makes it end so many seconds after 1970.
pub(crate) fn ending(seconds: u64) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
}

impl Identity {
    /// Puts the pair where [`crate::stage::settings`] looks for it.
    pub(crate) fn put(&self, folder: &Path) {
        put(folder, "api.pem", &self.pem, 0o644);
        put(folder, "api.key", &self.key.serialize_pem(), 0o600);
    }
}

/// Writes a file, of which nobody sees a half.
pub(crate) fn put(folder: &Path, name: &str, content: &str, mode: u32) {
    let half = folder.join(format!("{name}.new"));
    fs::write(&half, content).expect("a file");
    fs::set_permissions(&half, Permissions::from_mode(mode)).expect("a mode");
    fs::rename(half, folder.join(name)).expect("a file");
}
