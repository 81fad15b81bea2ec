//! Requests that were refused.

use super::pages::{VIEWERS, populated, viewer};
use super::*;
use crate::store::records::{DenialRow, Viewer};

fn denial(of: &Client, request_id: &str, at: i64) -> DenialRow {
    DenialRow {
        request_id: request_id.into(),
        at: Timestamp(at),
        practice: of.practice_id.clone(),
        client: Some(of.id),
        user: of.owner.clone(),
        owner: of.owner.clone(),
        route: "/api/public/v1/billing".into(),
        method: "GET".into(),
        path: "/api/public/v1/billing/7".into(),
        reason: "insufficient_scope".into(),
        status: 403,
        address: "2001:db8::7".parse().unwrap(),
        revision: Revision(7),
    }
}

pub(super) async fn denials_are_shown_to_whom_they_concern_page_by_page(store: &dyn Store) {
    let all = populated(store).await;
    let p = practice_id("p");
    store.add_denials(&[]).await.unwrap();
    let mut rows: Vec<_> = all.iter().zip(0..).map(|(client, n)| denial(client, &format!("r-{n}"), 5000 + n / 2)).collect();
    rows.push(DenialRow { client: None, user: None, owner: None, reason: "credential_invalid".into(), ..denial(&all[0], "none", 4000) });
    let mut sent = rows.clone();
    // Whoever says of a personal client that it is not shows it to nobody else.
    sent[1].owner = None;
    sent[0].owner = Some(user_id("u"));
    sent.push(sent[2].clone());
    store.add_denials(&sent).await.unwrap();
    store.add_denials(&sent).await.unwrap();
    rows.sort_unstable_by_key(|row| std::cmp::Reverse((row.at, row.request_id.clone())));
    for who in VIEWERS {
        let want: Vec<_> = rows
            .iter()
            .filter(|row| match &row.owner {
                None => matches!(who, "operator" | "admin"),
                Some(owner) => owner.as_str() == who,
            })
            .cloned()
            .collect();
        for limit in [1, 2, 100] {
            let mut found: Vec<DenialRow> = Vec::new();
            loop {
                let after = found.last().map(DenialRow::place);
                let page = store.denials_page(&p, &viewer(who), after.as_ref(), limit).await.unwrap();
                if page.is_empty() {
                    break;
                }
                found.extend(page);
            }
            assert_eq!(found, want, "{who} {limit}");
        }
    }
    assert_eq!(store.denials_page(&practice_id("q"), &Viewer::Operator, None, 9).await.unwrap(), []);

    assert_eq!(store.denial("r-1").await.unwrap().as_ref(), rows.iter().find(|row| &*row.request_id == "r-1"));
    assert_eq!(store.denial("unknown").await.unwrap(), None);
    // Whoever chooses an id that there is hides nothing by it.
    let again = denial(&all[2], "r-1", 9000);
    store.add_denials(std::slice::from_ref(&again)).await.unwrap();
    assert_eq!(store.denial("r-1").await.unwrap(), Some(again));
    assert_eq!(store.denials_page(&p, &viewer("u"), None, 9).await.unwrap().iter().filter(|row| &*row.request_id == "r-1").count(), 1);
}

pub(super) async fn the_newest_ten_thousand_of_each_practice_are_kept(store: &dyn Store) {
    let all = populated(store).await;
    let foreign = store.clients(Some(&practice_id("q")), None).await.unwrap().remove(0);
    store.add_denials(&[denial(&foreign, "foreign", 1)]).await.unwrap();
    let rows: Vec<_> = (0..14_500).map(|n| denial(&all[0], &format!("r-{n}"), i64::from(n / 3))).collect();
    for rows in rows.chunks(5000) {
        store.add_denials(rows).await.unwrap();
    }
    let kept = store.denials_page(&practice_id("p"), &Viewer::Operator, None, 20_000).await.unwrap();
    assert_eq!(kept.len(), 10_000);
    let mut want: Vec<_> = rows.iter().map(DenialRow::place).collect();
    want.sort_unstable_by_key(|place| std::cmp::Reverse((place.at, place.request_id.clone())));
    want.truncate(10_000);
    assert!(kept.iter().map(DenialRow::place).eq(want), "the newest");
    // One that comes late is older than all that is kept.
    store.add_denials(&[denial(&all[0], "late", 2)]).await.unwrap();
    assert_eq!(store.denial("late").await.unwrap(), None);
    assert!(store.denial("foreign").await.unwrap().is_some());
}
