//! The certificates of listeners: when they end, and whether new ones were taken up.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::add;
use crate::clock::Timestamp;

/// The metrics of certificates.
pub struct CertificateMetrics {
    ends: IntGaugeVec,
    reloads: [IntCounter; 2],
}

impl CertificateMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let ends = Opts::new(
            "sigmagate_certificate_expiry_timestamp_seconds",
            "When the first certificate of a listener ends, as seconds since 1970.",
        );
        let reloads = Opts::new("sigmagate_certificate_reloads_total", "Certificates of a listener taken up anew or refused.");
        let reloads = add(registry, IntCounterVec::new(reloads, &["result"]));
        Self {
            ends: add(registry, IntGaugeVec::new(ends, &["listener"])),
            reloads: ["ok", "refused"].map(|result| reloads.with_label_values(&[result])),
        }
    }

    /// When the first certificate of a listener ends. Listeners are those of the settings, so the label is bounded.
    pub fn ends(&self, listener: &str, at: Timestamp) {
        self.ends.with_label_values(&[listener]).set(at.0 / 1000);
    }

    /// New ones were taken up, or refused while the ones before stay.
    pub fn reloaded(&self, taken: bool) {
        self.reloads[usize::from(!taken)].inc();
    }
}
