//! Management tokens: ours, and those of issuers that the settings name.

use std::sync::Arc;

use super::trusted::Keys;
use super::{LEEWAY, OWN_ALGORITHMS, Unread};
use crate::cache::Replica;
use crate::clock;
use crate::jwks::Remote;
use crate::token::{
    Claims, Compact, Expected, Invalid, MANAGEMENT_AUDIENCE, MANAGEMENT_ISSUER, MANAGEMENT_TOKEN_TYPE, ManagementIssuer, Manager, Trust,
    verify,
};

/// Reads management tokens. Nothing is remembered: few come, and each is verified.
pub struct Managers {
    replica: Arc<Replica>,
    issuers: Vec<(ManagementIssuer, Keys)>,
}

impl Managers {
    /// Believes what keys of the replica sign, and these issuers. `follow` makes what fetches the keys of one, which is then
    /// run on the runtime of the caller.
    #[must_use]
    pub fn new(replica: Arc<Replica>, issuers: &[ManagementIssuer], follow: impl Fn(&Trust, &Arc<str>) -> Arc<Remote>) -> Self {
        let issuers = issuers.iter().map(|issuer| (issuer.clone(), Keys::new(&issuer.trust, &follow))).collect();
        Self { replica, issuers }
    }

    /// Who calls, by a token that is genuine, and whose time has come and is not over. A key that is still to be fetched is
    /// waited for: 6 seconds at most.
    ///
    /// # Errors
    /// [`Unread`] says what is wrong with it.
    pub async fn find(&self, token: &[u8]) -> Result<Manager, Unread> {
        match self.read(token) {
            Err(Unread::KeyWanted(wanted)) => {
                wanted.fetch().await;
                self.read(token)
            }
            read => read,
        }
    }

    fn read(&self, token: &[u8]) -> Result<Manager, Unread> {
        let compact = Compact::parse(token)?;
        // Only to find the keys by: whether it is true the signature says.
        let claimed = compact.claimed("iss").ok_or(Invalid::Issuer)?;
        if *claimed == *MANAGEMENT_ISSUER {
            return Ok(self.own(&compact)?);
        }
        let (issuer, keys) = self.issuers.iter().find(|(issuer, _)| *issuer.trust.name == *claimed).ok_or(Invalid::Issuer)?;
        let (verified, _) = keys.verify(&compact, &issuer.trust.algorithms)?;
        Ok(issuer.read(&verified, clock::now())?)
    }

    fn own(&self, compact: &Compact<'_>) -> Result<Manager, Invalid> {
        let verified = verify(compact, self.replica.ring().verifying(), &OWN_ALGORITHMS)?;
        let expected = Expected { issuer: MANAGEMENT_ISSUER, audiences: &[MANAGEMENT_AUDIENCE], leeway: LEEWAY };
        Manager::from_claims(&Claims::check(verified.of_type(MANAGEMENT_TOKEN_TYPE)?, &expected, clock::now())?)
    }
}
