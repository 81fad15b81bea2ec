//! Requests that may come twice.

use super::*;
use crate::store::records::Idempotent;

pub(super) async fn a_request_is_carried_out_once_and_answered_as_often_as_it_comes(store: &dyn Store) {
    let (one, other) = ([1; 32], [2; 32]);
    assert_eq!(store.begin_idempotent("user:u", one, one).await.unwrap(), Idempotent::Begun);
    assert_eq!(store.begin_idempotent("user:u", one, one).await.unwrap(), Idempotent::UnderWay);
    assert_eq!(store.begin_idempotent("user:u", one, other).await.unwrap(), Idempotent::Mismatch);
    assert_eq!(store.begin_idempotent("user:v", one, other).await.unwrap(), Idempotent::Begun, "keys of another are others");
    assert_eq!(store.begin_idempotent("user:u", other, one).await.unwrap(), Idempotent::Begun);
    store.finish_idempotent("user:u", one, 201, "é").await.unwrap();
    let replay = Idempotent::Replay { status: 201, body: "é".into() };
    for _ in 0..2 {
        assert_eq!(store.begin_idempotent("user:u", one, one).await.unwrap(), replay);
        // It stays as it is, whatever is said later.
        store.finish_idempotent("user:u", one, 500, "").await.unwrap();
        store.abandon_idempotent("user:u", one).await.unwrap();
    }
    assert_eq!(store.begin_idempotent("user:u", one, other).await.unwrap(), Idempotent::Mismatch);
    store.abandon_idempotent("user:u", other).await.unwrap();
    assert_eq!(store.begin_idempotent("user:u", other, other).await.unwrap(), Idempotent::Begun);
    store.prune_tokens().await.unwrap();
    assert_eq!(store.begin_idempotent("user:u", one, one).await.unwrap(), replay, "it is not a day old");
    assert_eq!(store.begin_idempotent("user:u", other, other).await.unwrap(), Idempotent::UnderWay);
}

pub(super) async fn of_many_at_once_one_is_begun(store: Arc<dyn Store>) {
    let calls = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.begin_idempotent("operator", [7; 32], [7; 32]).await.unwrap() })
    });
    let mut begun = 0;
    for call in calls.collect::<Vec<_>>() {
        match call.await.unwrap() {
            Idempotent::Begun => begun += 1,
            other => assert_eq!(other, Idempotent::UnderWay),
        }
    }
    assert_eq!(begun, 1);
}
