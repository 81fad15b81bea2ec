//! The suite of every store on a PostgreSQL of the test's own, and what only a fleet has.

#[path = "../../../tests/support/postgres.rs"]
mod support;

use std::sync::Arc;

use support::Postgres;

use super::{PgStore, Timing};
use crate::store::{Store, suite};

#[tokio::test]
async fn postgres_passes_the_suite() {
    let server = Postgres::start(&[]);
    suite::run(async || -> Arc<dyn Store> {
        Arc::new(PgStore::open(&server.database(), Timing::default(), true).await.unwrap()) as Arc<dyn Store>
    })
    .await;
}
