//! Audit events: who did what, when, from where; each holds the hash of the one before it.

use std::collections::HashMap;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::digest::Sha256;
use crate::id::PracticeId;

/// A SHA-256; written as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Hash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Event {
    /// Counts up over all practices.
    pub id: u64,
    /// When.
    pub at: Timestamp,
    /// The practice concerned, whose chain this is in; `None`: the chain of the gateway itself.
    pub practice_id: Option<PracticeId>,
    /// Who: `operator`, or `user:ID`.
    pub actor: String,
    /// From where: `cli`, or an address.
    pub origin: String,
    /// What was done, as `client.revoke`.
    pub action: String,
    /// To what: the id of the practice, user, client, signing key or token.
    pub target: String,
    /// How it was; null if it was not.
    pub before: Value,
    /// How it is since. No secret and no digest, like `before`.
    pub after: Value,
    /// The hash of the event before it in the chain; zeros for the first.
    pub prev_hash: Hash,
    /// The hash of all the above.
    pub hash: Hash,
}

impl Event {
    /// The hash that belongs to the other fields: SHA-256 over each in order, led by its length, so that no two events
    /// have the same bytes under it.
    #[must_use]
    pub fn computed_hash(&self) -> Hash {
        let mut sha = Sha256::default();
        let mut field = |bytes: &[u8]| {
            sha.update((bytes.len() as u64).to_be_bytes());
            sha.update(bytes);
        };
        field(b"sigmagate audit event 1");
        field(&self.id.to_be_bytes());
        field(&self.at.0.to_be_bytes());
        // A practice id is never empty, so an empty field can only mean that there is none.
        field(self.practice_id.as_ref().map_or("", PracticeId::as_str).as_bytes());
        for text in [&self.actor, &self.origin, &self.action, &self.target] {
            field(text.as_bytes());
        }
        field(self.before.to_string().as_bytes());
        field(self.after.to_string().as_bytes());
        field(&self.prev_hash.0);
        Hash(sha.finish())
    }
}

/// The first event at which the ledger does not hold together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger is broken at event {id}: {why}")]
pub struct Broken {
    /// The event.
    pub id: u64,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Takes in a ledger, event after event from the oldest on, and finds where it does not hold together.
#[derive(Debug, Default)]
pub struct Verifier {
    newest: HashMap<Option<PracticeId>, Hash>,
    last_id: u64,
}

impl Verifier {
    /// Whether this event is what was written after those before it: none altered, none missing between two of the same
    /// practice.
    ///
    /// # Errors
    /// [`Broken`], if it does not fit.
    pub fn take(&mut self, event: &Event) -> Result<(), Broken> {
        let broken = |why| Err(Broken { id: event.id, why });
        if event.id <= self.last_id {
            return broken("it is out of order");
        }
        self.last_id = event.id;
        if event.prev_hash != self.newest.get(&event.practice_id).copied().unwrap_or_default() {
            return broken("it does not follow the event before it: one was removed, put in or altered");
        }
        if event.computed_hash() != event.hash {
            return broken("its content does not match its hash: it was altered");
        }
        self.newest.insert(event.practice_id.clone(), event.hash);
        Ok(())
    }

    /// The last event that was taken in; 0 before the first.
    #[must_use]
    pub fn last_id(&self) -> u64 {
        self.last_id
    }
}

/// Whether the events, oldest first, are what was written: none altered, none missing between two of the same practice.
/// (That the newest are missing cannot be seen from the events alone: keep the newest hash elsewhere.)
///
/// # Errors
/// [`Broken`] names the first event that does not fit.
pub fn verify(events: &[Event]) -> Result<(), Broken> {
    let mut verifier = Verifier::default();
    events.iter().try_for_each(|event| verifier.take(event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain() -> Vec<Event> {
        let mut events: Vec<Event> = Vec::new();
        for (id, practice) in [(1, Some("p")), (2, None), (3, Some("p")), (4, Some("p"))] {
            let practice_id = practice.map(|p| p.parse().unwrap());
            let prev_hash = events.iter().rev().find(|e| e.practice_id == practice_id).map_or(Hash::default(), |e| e.hash);
            let mut event = Event {
                id,
                at: Timestamp(7),
                practice_id,
                actor: "operator".into(),
                origin: "cli".into(),
                action: "practice.put".into(),
                target: "p".into(),
                before: Value::Null,
                after: serde_json::json!({"name": "n"}),
                prev_hash,
                hash: Hash::default(),
            };
            event.hash = event.computed_hash();
            events.push(event);
        }
        events
    }

    #[test]
    fn an_untouched_ledger_holds() {
        assert_eq!(verify(&chain()), Ok(()));
        assert_eq!(verify(&[]), Ok(()));
    }

    #[test]
    fn an_altered_removed_or_moved_event_is_found() {
        let mut altered = chain();
        altered[2].actor = "user:u".into();
        assert_eq!(verify(&altered).unwrap_err().id, 3);
        let mut rehashed = chain();
        rehashed[2].actor = "user:u".into();
        rehashed[2].hash = rehashed[2].computed_hash();
        assert_eq!(verify(&rehashed).unwrap_err().id, 4);
        let mut removed = chain();
        removed.remove(2);
        assert_eq!(verify(&removed).unwrap_err().id, 4);
        let mut moved = chain();
        moved.swap(2, 3);
        assert!(verify(&moved).is_err());
    }

    #[test]
    fn what_is_split_differently_hashes_differently() {
        let mut one = chain().remove(0);
        let mut two = one.clone();
        (one.actor, one.origin) = ("ab".into(), "c".into());
        (two.actor, two.origin) = ("a".into(), "bc".into());
        assert_ne!(one.computed_hash(), two.computed_hash());
    }
}
