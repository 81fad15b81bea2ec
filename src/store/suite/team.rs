//! Teams as SigmaMD tells of them.

use super::*;
use crate::store::Committed;
use crate::store::records::{TeamMember, TeamSync};

/// What SigmaMD says of a user.
pub(in crate::store) fn put(id: &str, role: Role, name: Option<&str>, email: Option<&str>) -> TeamSync {
    TeamSync::Put { id: user_id(id), role, name: name.map(Into::into), email: email.map(Into::into) }
}

fn remove(id: &str) -> TeamSync {
    TeamSync::Remove { id: user_id(id) }
}

async fn sync(store: &dyn Store, rows: &[TeamSync]) -> (Vec<Result<(), Error>>, Option<Committed>) {
    store.sync_team(&practice_id("p"), rows, &operator()).await.unwrap()
}

fn told(member: &TeamMember) -> (&str, Role, Option<&str>, Option<&str>) {
    (member.user.id.as_str(), member.user.role, member.name.as_deref(), member.email.as_deref())
}

pub(super) async fn a_team_is_taken_in_row_by_row(store: &dyn Store) {
    let by = operator();
    let nowhere = store.sync_team(&practice_id("p"), &[put("a", Role::Admin, None, None)], &by).await;
    assert!(matches!(nowhere, Err(Error::NotFound { what: "practice", .. })));
    assert!(matches!(store.team(&practice_id("p")).await, Err(Error::NotFound { what: "practice", .. })));
    furnish(store).await;
    let _ = store.put_practice(&practice_id("q"), "Other", &by).await.unwrap();
    let _ = store.put_user(&practice_id("q"), &user_id("theirs"), Role::Admin, &by).await.unwrap();
    let (mut feed, head) = follow(store).await;
    let before = store.audit(None).await.unwrap().len();
    let rows = [
        put("u", Role::Admin, Some("Ursula"), Some("u@clinic.example")),
        put("theirs", Role::Member, Some("Theo"), None),
        put("new", Role::Member, Some("Nora"), None),
        remove("unknown"),
        put("long", Role::Member, Some(&"é".repeat(201)), None),
        put("short", Role::Member, None, Some("@")),
        put("odd", Role::Member, Some("a\nb"), None),
        put("plain", Role::Member, None, None),
    ];
    let (mut results, committed) = sync(store, &rows).await;
    let refused: Vec<_> = results.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, true, false, true, true, true, true, false]);
    assert!(matches!(results[3], Err(Error::NotFound { what: "user", .. })));
    is_conflict(results.remove(1), "belongs to another practice");
    is_conflict(results.remove(3), "201 characters");
    is_conflict(results.remove(3), "give 3 to 254");
    is_conflict(results.remove(3), "control character");
    // One change, of three users.
    let committed = committed.unwrap();
    let Changes::Batch { head: newer, changes, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    assert_eq!((newer, changes.len()), (committed.revision(), 3), "{changes:?}");

    let team = store.team(&practice_id("p")).await.unwrap();
    assert_eq!(
        team.iter().map(told).collect::<Vec<_>>(),
        [
            ("new", Role::Member, Some("Nora"), None),
            ("plain", Role::Member, None, None),
            ("u", Role::Admin, Some("Ursula"), Some("u@clinic.example")),
        ]
    );
    assert!(team[2].user.api_access && !team[0].user.api_access, "who is new starts without, who is there keeps it");
    assert_eq!(store.team_member(&user_id("new")).await.unwrap(), team[0]);
    assert!(matches!(store.team_member(&user_id("nobody")).await, Err(Error::NotFound { what: "user", .. })));
    assert_eq!(told(&store.team_member(&user_id("theirs")).await.unwrap()), ("theirs", Role::Admin, None, None));

    // Somebody leaves, and somebody is called differently, which is no change for the gateways.
    let (results, committed) =
        sync(store, &[remove("u"), remove("theirs"), put("new", Role::Member, Some("N."), Some("n@x.example"))]).await;
    assert_eq!(results.iter().map(Result::is_err).collect::<Vec<_>>(), [false, true, false]);
    let left = store.team_member(&user_id("u")).await.unwrap();
    assert!(left.user.left_at.is_some() && !left.user.api_access);
    let Changes::Batch { head: newer, changes, .. } = feed.poll(newer).await.unwrap() else { panic!("not seen") };
    assert_eq!((newer, changes.len()), (committed.unwrap().revision(), 1), "{changes:?}");
    let (_, committed) = sync(store, &[put("new", Role::Member, Some("N."), None)]).await;
    assert_eq!(committed.unwrap().revision(), newer);
    assert!(matches!(feed.poll(newer).await.unwrap(), Changes::Unchanged), "nobody has to be told");
    feed.leave().await.unwrap();

    let events = store.audit(None).await.unwrap();
    assert_eq!(audit::verify(&events), Ok(()));
    let events = &events[before..];
    let actions: Vec<_> = events.iter().map(|event| (event.action.as_str(), event.target.as_str())).collect();
    let first = [("user.put", "u"), ("user.put", "new"), ("user.put", "plain")];
    assert_eq!(actions, [&first[..], &[("user.remove", "u"), ("user.put", "new"), ("user.put", "new")]].concat());
    assert_eq!((&events[0].before["name"], &events[0].after["name"]), (&Value::Null, &Value::from("Ursula")));
    assert_eq!((&events[0].before["role"], &events[0].after["role"]), (&Value::from("member"), &Value::from("admin")));
    assert_eq!((&events[1].before, &events[1].after["name"]), (&Value::Null, &Value::from("Nora")));
    assert_eq!((&events[4].before["name"], &events[4].after["name"]), (&Value::from("Nora"), &Value::from("N.")));
    let of_email: Vec<_> = events.iter().map(|event| event.after["email"].as_str()).collect();
    assert_eq!(of_email, [Some("added"), None, None, None, Some("added"), Some("removed")]);
    assert!(!serde_json::to_string(events).unwrap().contains('@'), "no address is in the ledger");
}

pub(super) async fn what_is_said_again_leaves_no_trace(store: &dyn Store) {
    furnish(store).await;
    let rows = [
        put("a", Role::Admin, Some("Ada"), Some("a@clinic.example")),
        put("u", Role::Member, None, None),
        put("b", Role::Member, None, None),
    ];
    let (_, first) = sync(store, &rows).await;
    let _ = sync(store, &[remove("b")]).await;
    let before = store.audit(None).await.unwrap().len();
    // What is done already can be waited for, as when the first answer was lost.
    let (results, again) = sync(store, &[rows[0].clone(), rows[1].clone(), remove("b")]).await;
    assert!(results.iter().all(Result::is_ok));
    assert!(again.unwrap().revision() > first.unwrap().revision());
    assert_eq!(store.audit(None).await.unwrap().len(), before);
    let (results, nothing) = sync(store, &[remove("nobody")]).await;
    assert!(results[0].is_err() && nothing.is_none());
    let (results, nothing) = sync(store, &[]).await;
    assert!(results.is_empty() && nothing.is_none());
    // What else is said of a user leaves their name alone.
    let _ = store.put_user(&practice_id("p"), &user_id("a"), Role::Member, &operator()).await.unwrap();
    let ada = store.team_member(&user_id("a")).await.unwrap();
    assert_eq!(told(&ada), ("a", Role::Member, Some("Ada"), Some("a@clinic.example")));
}

pub(super) async fn rows_of_one_user_count_in_their_order(store: &dyn Store) {
    furnish(store).await;
    let before = store.audit(None).await.unwrap().len();
    let rows = [remove("u"), put("u", Role::Admin, Some("U"), None), remove("n"), put("n", Role::Member, None, None), remove("n")];
    let (results, _) = sync(store, &rows).await;
    assert_eq!(results.iter().map(Result::is_err).collect::<Vec<_>>(), [false, false, true, false, false]);
    let team = store.team(&practice_id("p")).await.unwrap();
    assert_eq!(team.iter().map(told).collect::<Vec<_>>(), [("n", Role::Member, None, None), ("u", Role::Admin, Some("U"), None)]);
    assert!(team[0].user.left_at.is_some() && team[1].user.left_at.is_none() && !team[1].user.api_access);
    let events = store.audit(None).await.unwrap();
    let actions: Vec<_> = events[before..].iter().map(|event| (event.action.as_str(), event.target.as_str())).collect();
    assert_eq!(actions, [("user.remove", "u"), ("user.put", "u"), ("user.put", "n"), ("user.remove", "n")]);
    assert_eq!(audit::verify(&events), Ok(()));
}

pub(super) async fn a_large_team_is_taken_in_at_once(store: &dyn Store) {
    furnish(store).await;
    let member = |n: u32, role| put(&format!("m{n}"), role, Some(&format!("Member {n}")), Some(&format!("m{n}@clinic.example")));
    for role in [Role::Member, Role::Admin] {
        let rows: Vec<_> = (0..500).map(|n| member(n, role)).collect();
        let (results, _) = sync(store, &rows).await;
        assert!(results.iter().all(Result::is_ok));
    }
    let team = store.team(&practice_id("p")).await.unwrap();
    assert_eq!((team.len(), team.iter().filter(|member| member.user.role == Role::Admin).count()), (501, 500));
    let events = store.audit(None).await.unwrap();
    assert_eq!((events.len(), audit::verify(&events)), (1004, Ok(())));
}
