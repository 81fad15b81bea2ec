//! PostgreSQL seen from outside: the server that the tests make for themselves, and the program on it.

#[path = "../support/postgres.rs"]
mod support;

use std::time::Duration;

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use self::support::Postgres;

async fn number(url: &str) -> Result<i32, sqlx::Error> {
    let mut conn = PgConnection::connect(url).await?;
    sqlx::query_scalar("SELECT n FROM t").fetch_one(&mut conn).await
}

#[tokio::test]
async fn the_server_comes_back_from_everything_that_tests_do_to_it() {
    let server = Postgres::with(&["shared_buffers = 8MB"]).await;
    let (url, other) = (server.database().await, server.database().await);
    assert_ne!(url, other);
    let mut conn = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").execute(&mut conn).await.unwrap();
    let shared: String = sqlx::query_scalar("SHOW shared_buffers").fetch_one(&mut conn).await.unwrap();
    assert_eq!(shared, "8MB");

    server.pause();
    let asked = tokio::time::timeout(Duration::from_millis(200), sqlx::query("SELECT 1").execute(&mut conn)).await;
    assert!(asked.is_err(), "a paused server says nothing");
    server.resume();
    assert_eq!(number(&url).await.unwrap(), 7);

    server.kill().await;
    assert!(PgConnection::connect(&url).await.is_err());
    server.restart().await;
    assert_eq!(number(&url).await.unwrap(), 7);
    server.stop_immediate().await;
    assert!(PgConnection::connect(&url).await.is_err());
    server.restart().await;
    server.restart().await;
    assert_eq!(number(&url).await.unwrap(), 7);
    let name = url.rsplit('/').next().unwrap();
    assert_eq!(number(&server.socket_url(name)).await.unwrap(), 7);
    assert!(number(&other).await.is_err(), "a database is a test's own");
}
