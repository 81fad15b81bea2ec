//! What happened, by one clock, and whether any of it should not have.

use std::fmt;

/// Nanoseconds since the run began.
pub type Moment = u64;

/// What a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One client, by its number.
    Client(usize),
    /// The user who owns the personal clients.
    User,
    /// The practice that is switched off and on.
    Practice,
}

/// A client of the run, by its number.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    pub client: usize,
    pub personal: bool,
    pub switched: bool,
}

impl Scope {
    fn covers(self, member: Member) -> bool {
        match self {
            Self::Client(client) => client == member.client,
            Self::User => member.personal,
            Self::Practice => member.switched,
        }
    }
}

/// One request and its answer; status 0: none.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub member: Member,
    pub node: usize,
    pub begun: Moment,
    pub ended: Moment,
    pub status: u16,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub scope: Scope,
    pub allows: bool,
    pub begun: Moment,
    /// From when on it has to be in force; `None`: nobody was told that it had happened.
    pub in_force: Option<Moment>,
}

/// A piece of a stream that reached the client of it.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub member: Member,
    pub node: usize,
    /// When the upstream sent it.
    pub sent: Moment,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct History {
    pub requests: Vec<Request>,
    pub changes: Vec<Change>,
    pub pieces: Vec<Piece>,
}

/// Something that must not be.
#[derive(Clone, Debug)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl History {
    /// Every admission and every piece of a stream that came after a change that forbids it was in force; and every
    /// refusal of a client that nothing ever happened to, except that the node could not vouch.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        for request in &self.requests {
            if request.status == 200 {
                if let Some(change) = self.forbids(request.member, request.begun, request.ended) {
                    found.push(Violation(format!("gateway {} admitted {request:?} after {change:?}", request.node)));
                }
            } else if !matches!(request.status, 0 | 503) && !self.changes.iter().any(|change| change.scope.covers(request.member)) {
                found.push(Violation(format!("gateway {} refused {request:?} for no reason", request.node)));
            }
        }
        for piece in &self.pieces {
            if let Some(change) = self.forbids(piece.member, piece.sent, piece.sent) {
                found.push(Violation(format!("gateway {} let {piece:?} through after {change:?}", piece.node)));
            }
        }
        found
    }

    /// A change that was in force before `begun` and that nothing, begun before `ended`, can have undone.
    fn forbids(&self, member: Member, begun: Moment, ended: Moment) -> Option<&Change> {
        let of = |change: &&Change| change.scope.covers(member);
        self.changes.iter().filter(of).find(|change| {
            let undone = || {
                self.changes
                    .iter()
                    .any(|other| other.scope == change.scope && other.allows && other.begun > change.begun && other.begun < ended)
            };
            !change.allows && change.in_force.is_some_and(|since| since < begun) && !undone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: Member = Member { client: 1, personal: false, switched: true };
    const KEY: Member = Member { client: 2, personal: true, switched: true };

    fn request(member: Member, begun: Moment, ended: Moment, status: u16) -> Request {
        Request { member, node: 0, begun, ended, status }
    }

    fn change(scope: Scope, allows: bool, begun: Moment, in_force: Option<Moment>) -> Change {
        Change { scope, allows, begun, in_force }
    }

    fn count(requests: &[Request], changes: &[Change]) -> usize {
        History { requests: requests.to_vec(), changes: changes.to_vec(), pieces: vec![] }.violations().len()
    }

    #[test]
    fn an_admission_that_began_after_the_receipt_is_a_violation() {
        let revoked = change(Scope::Client(1), false, 10, Some(20));
        assert_eq!(count(&[request(APP, 21, 30, 200)], &[revoked]), 1);
        assert_eq!(count(&[request(APP, 19, 30, 200)], &[revoked]), 0, "it began before");
        assert_eq!(count(&[request(KEY, 21, 30, 200)], &[revoked]), 0, "another client");
        assert_eq!(count(&[request(APP, 21, 30, 401)], &[revoked]), 0);
        assert_eq!(count(&[request(APP, 21, 30, 200)], &[change(Scope::Client(1), false, 10, None)]), 0, "nobody was told");
    }

    #[test]
    fn what_is_on_again_may_pass_from_when_that_began() {
        let (off, on) = (change(Scope::User, false, 10, Some(20)), change(Scope::User, true, 40, None));
        assert_eq!(count(&[request(KEY, 21, 30, 200)], &[off, on]), 1);
        assert_eq!(count(&[request(KEY, 35, 45, 200)], &[off, on]), 0);
        assert_eq!(count(&[request(APP, 21, 30, 200)], &[off, on]), 0, "not of that user");
        let again = change(Scope::User, false, 50, Some(60));
        assert_eq!(count(&[request(KEY, 61, 62, 200)], &[off, on, again]), 1);
        let practice = change(Scope::Practice, false, 10, Some(20));
        assert_eq!(count(&[request(KEY, 45, 46, 200)], &[off, on, practice]), 1, "the practice is still off");
    }

    #[test]
    fn a_refusal_without_a_reason_is_a_violation() {
        for (status, violations) in [(200, 0), (503, 0), (0, 0), (401, 1), (403, 1), (404, 1)] {
            assert_eq!(count(&[request(APP, 1, 2, status)], &[]), violations, "{status}");
        }
    }

    #[test]
    fn a_piece_sent_after_the_receipt_is_a_violation() {
        let history = |sent| History {
            pieces: vec![Piece { member: APP, node: 0, sent }],
            changes: vec![change(Scope::Client(1), false, 10, Some(20))],
            requests: vec![],
        };
        assert_eq!((history(21).violations().len(), history(20).violations().len()), (1, 0));
    }
}
