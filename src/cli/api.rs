//! Where the verbs find the management API.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::output::Usage;
use crate::id::UserId;
use crate::manage::{Remote, Trust};
use crate::tls;

/// The variable that holds a management token.
const TOKEN: &str = "SIGMAGATE_TOKEN";

/// Where the management API is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Ask a running gateway, at its management listener, as `http://127.0.0.1:8081`, with the management token in
    /// `SIGMAGATE_TOKEN` or `--token-file`; left out: work on the store that the settings name, as an operator
    #[arg(long, global = true, value_name = "URL", env = "SIGMAGATE_API")]
    api: Option<String>,
    /// A file with the management token
    #[arg(long, global = true, value_name = "FILE", requires = "api")]
    token_file: Option<PathBuf>,
    /// Certificates (PEM) that the gateway may be vouched for by, besides those that the system trusts
    #[arg(long, global = true, value_name = "FILE", requires = "api")]
    api_ca: Option<PathBuf>,
    /// The caller's own certificate (PEM), for a gateway that asks for one
    #[arg(long, global = true, value_name = "FILE", requires = "api", requires = "api_key")]
    api_certificate: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "api", requires = "api_certificate")]
    api_key: Option<PathBuf>,
    /// Without `--api`: work on the store as this user, for what is theirs alone
    #[arg(long = "as", global = true, value_name = "USER", conflicts_with = "api")]
    acting_as: Option<UserId>,
}

impl Options {
    /// As whom to work on the store; an operator if none is given.
    pub(super) const fn user(&self) -> Option<&UserId> {
        self.acting_as.as_ref()
    }

    /// The gateway to ask, if one is given.
    ///
    /// # Errors
    /// There is no token, or a file cannot be read.
    pub(super) fn remote(&self) -> anyhow::Result<Option<Remote>> {
        let Some(base) = &self.api else { return Ok(None) };
        let token = match &self.token_file {
            Some(path) => String::from_utf8(read(path)?).with_context(|| format!("`{}` holds no token", path.display()))?,
            None => std::env::var(TOKEN).map_err(|_| {
                Usage(format!(
                    "no management token: put one into {TOKEN}, or into a file for --token-file; `sigmagate management-token` mints one"
                ))
            })?,
        };
        let identity = self.api_certificate.as_deref().zip(self.api_key.as_deref()).map(|(certificate, key)| {
            tls::certified_key(certificate, key)?;
            anyhow::Ok(Zeroizing::new([read(key)?, read(certificate)?].concat()))
        });
        let authorities = self.api_ca.as_deref().map(tls::authorities).transpose()?.unwrap_or_default();
        let trust = Trust { authorities, identity: identity.transpose()? };
        let remote = Remote::new(base, token.trim(), &trust)?;
        if remote.is_in_the_clear() {
            let warning = "warning: the management token crosses the network in plain text: give the gateway [management] `tls`";
            // Nobody there to read it is no reason not to go on.
            let _ = writeln!(io::stderr(), "{warning}");
        }
        Ok(Some(remote))
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read `{}`", path.display()))
}
