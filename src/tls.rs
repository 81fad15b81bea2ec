//! The one TLS crypto provider of the process.

/// Makes AWS-LC the provider of every TLS connection of the process. Called first thing; a second call changes nothing.
pub fn install_provider() {
    // An error means that a provider is installed already: by an earlier call, since nothing else installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
