//! What a certificate says of itself.

use std::net::IpAddr;
use std::time::Duration;

use kasm_autoscale_core::time::Timestamp;
use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// What matters of a certificate.
pub(super) struct Looked {
    /// The first instant at which it is valid.
    pub(super) begins: Timestamp,
    /// The last one.
    pub(super) ends: Timestamp,
    /// The names and addresses it stands for; clients look at nothing else. Names are ASCII, as they stand in it.
    pub(super) names: Vec<String>,
    /// Its number among those of its issuer, in hexadecimal digits.
    pub(super) serial: String,
    /// Whether it may be shown by a server.
    pub(super) for_servers: bool,
    /// Whether it may issue others.
    pub(super) is_authority: bool,
    /// Whose it is, as it stands in it.
    pub(super) subject: Vec<u8>,
    /// Who has issued it, as it stands in it.
    pub(super) issuer: Vec<u8>,
}

impl Looked {
    /// Looks at a certificate; `None` if it is none.
    pub(super) fn at(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let names = certificate
            .subject_alternative_name()
            .ok()?
            .map_or_else(Vec::new, |extension| extension.value.general_names.iter().filter_map(name).collect());
        // RFC 5280 §4.2.1.12: without the extension it is good for everything.
        let purposes = certificate.extended_key_usage().ok()?;
        let for_servers = purposes.is_none_or(|purposes| purposes.value.server_auth || purposes.value.any);
        Some(Self {
            begins: instant(certificate.validity().not_before),
            ends: instant(certificate.validity().not_after),
            names,
            serial: certificate.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect(),
            for_servers,
            is_authority: certificate.is_ca(),
            subject: certificate.subject().as_raw().to_vec(),
            issuer: certificate.issuer().as_raw().to_vec(),
        })
    }
}

/// An instant before 1970 is the first one that there is.
fn instant(time: ASN1Time) -> Timestamp {
    Timestamp::default() + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).map(|address| address.to_string()).ok()
        }
        _ => None,
    }
}
