//! What `/metrics` says of the certificate. Without TLS it says nothing.

use kasm_autoscale_core::time::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Which certificate: so far there is one.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfCertificate {
    certificate: &'static str,
}

/// That of the API. Gauges with labels are not there at all until they are set, as is right without TLS.
const API: OfCertificate = OfCertificate { certificate: "api" };

/// Whether what was found was put to use.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OfReload {
    outcome: &'static str,
}

/// Gauges and counters of the certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateCounts {
    ends: Family<OfCertificate, Gauge>,
    refused: Family<OfCertificate, Gauge>,
    reloads: Family<OfReload, Counter>,
}

impl CertificateCounts {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "certificate_expires",
            "When the certificate that the API shows expires, since 1970; alarm when that is less than 14 days from now",
            Unit::Seconds,
            self.ends.clone(),
        );
        registry.register(
            "certificate_refused",
            "1: a new certificate, key or client CA cannot be used, and the old ones go on; alarm above 0",
            self.refused.clone(),
        );
        registry.register(
            "certificate_reloads",
            "How often a new certificate, key or client CA was found, by outcome: taken, refused",
            self.reloads.clone(),
        );
    }

    /// A certificate that ends then is in use, and no other one waits to be mended.
    pub(super) fn in_use(&self, ends: Timestamp) {
        self.ends.get_or_create(&API).set(i64::try_from(ends.as_millis() / 1000).unwrap_or(i64::MAX));
        self.refused.get_or_create(&API).set(0);
        // So that both are there from the start, and an alarm sees the first one come.
        for outcome in ["taken", "refused"] {
            drop(self.reloads.get_or_create(&OfReload { outcome }));
        }
    }

    pub(super) fn taken(&self) {
        self.reloads.get_or_create(&OfReload { outcome: "taken" }).inc();
    }

    pub(super) fn refused(&self) {
        self.refused.get_or_create(&API).set(1);
        self.reloads.get_or_create(&OfReload { outcome: "refused" }).inc();
    }
}
