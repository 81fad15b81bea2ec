//! From a URL to a database that can be relied on.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use tokio::time::timeout;

use super::Fleet;
use super::fault::unusable;
use crate::store::Error;

/// The schema, one step after the other.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/postgres/0001_access.sql"),
    include_str!("../../../migrations/postgres/0002_changes.sql"),
    include_str!("../../../migrations/postgres/0003_strict.sql"),
    include_str!("../../../migrations/postgres/0004_tokens.sql"),
    include_str!("../../../migrations/postgres/0005_records.sql"),
    include_str!("../../../migrations/postgres/0006_retention.sql"),
];

/// The newest schema that this program knows.
pub(super) fn newest_schema() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// What a URL may say after its `?`. sqlx passes over any other, and logs its value: `sslmod=verify-full` would be no
/// verification, and a misspelt `password` would be in the log.
const PARAMETERS: &[&str] = &[
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "statement-cache-capacity",
    "user",
];

/// How the database is to be connected to.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, Error> {
    let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
    for name in parameters.split('&').filter_map(|parameter| parameter.split('=').next()).filter(|name| !name.is_empty()) {
        if !PARAMETERS.contains(&name) {
            return Err(unusable(format!(
                "`store.url` has a parameter `{name}`, which there is not: the ones there are are `{}`",
                PARAMETERS.join("`, `")
            )));
        }
    }
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        // The error may quote the URL, and with it the password.
        let why = match error {
            sqlx::Error::Configuration(error) => error.to_string(),
            _ => "it cannot be read".to_owned(),
        };
        unusable(format!("`store.url` is no URL of a PostgreSQL database ({why}): write `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`"))
    })?;
    let remote = options.get_socket().is_none() && !matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1" | "[::1]");
    if remote && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull | PgSslMode::VerifyCa) {
        tracing::warn!(
            host = options.get_host(),
            "nothing proves that this is our database: add `sslmode=verify-full&sslrootcert=FILE` to `store.url`"
        );
    }
    // A question that hangs must not hang for ever, and a transaction that was forgotten must not keep others waiting.
    // Names are always given in full; an empty path makes sure of it.
    Ok(options.application_name("sigmagate").options([
        ("statement_timeout", "10s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("client_min_messages", "warning"),
        // What a transaction waited for, it sees: the rules count on it, whatever the database is set to.
        ("default_transaction_isolation", "read committed"),
        ("search_path", "pg_catalog"),
        // Who changes something here waits for the receipt, so strict mode need not do it once more.
        ("gateway.waits", "on"),
    ]))
}

/// Host and database, for messages.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let socket = options.get_socket().map(|socket| socket.display().to_string());
    let host = socket.as_deref().unwrap_or(options.get_host());
    // As the server does where there is no name.
    let database = options.get_database().unwrap_or(options.get_username());
    format!("PostgreSQL at {host}:{} (database `{database}`)", options.get_port())
}

/// A pool of connections to a database whose schema is as this program needs it.
pub(super) async fn connect(options: &PgConnectOptions, fleet: &Fleet, migrate: bool) -> Result<PgPool, Error> {
    let mut conn = options.clone().connect().await?;
    make_ready(&mut conn, migrate).await?;
    durable(&mut conn, fleet.durability_asserted).await?;
    if fleet.timing.freeze_allowance.is_zero() {
        warn_of_blind_clock();
    }
    conn.close().await?;
    let pool = PgPoolOptions::new().max_connections(16).acquire_timeout(Duration::from_secs(5)).after_release(|conn, _| {
        // A connection that says nothing is closed. sqlx would wait for it, and it would be missing from the pool.
        Box::pin(async move { timeout(Duration::from_secs(5), conn.ping()).await.map_err(|_| sqlx::Error::PoolTimedOut)?.map(|()| true) })
    });
    Ok(pool.connect_with(options.clone()).await?)
}

async fn make_ready(conn: &mut PgConnection, migrate: bool) -> Result<(), Error> {
    let (standby, version): (bool, i32) =
        sqlx::query_as("SELECT pg_is_in_recovery(), current_setting('server_version_num')::int").fetch_one(&mut *conn).await?;
    if standby {
        return Err(unusable("this is a standby, which can prove nothing: name the primary in `store.url`".to_owned()));
    }
    // Before 14 `extract` counts in floating point, and a moment may come back a millisecond early.
    if version < 140_000 {
        return Err(unusable(format!("PostgreSQL {} is too old: the gateway needs 14 or newer", version / 10_000)));
    }
    let newest = newest_schema();
    if migrate {
        if schema_version(conn).await? < newest {
            upgrade(conn).await?;
        }
        own_log(conn).await?;
    }
    match schema_version(conn).await? {
        0 => Err(unusable("the database has nothing of the gateway's yet: run `sigmagate migrate`".to_owned())),
        old if old < newest => Err(unusable(format!("the database has schema {old} of {newest}: run `sigmagate migrate`"))),
        newer if newer > newest => {
            Err(unusable(format!("the database has schema {newer}, but this program knows {newest}: run a newer sigmagate")))
        }
        _ => Ok(()),
    }
}

/// After a restored dump the log has to begin anew; who merely opens the store may not be allowed to, and need not.
async fn own_log(conn: &mut PgConnection) -> Result<(), Error> {
    if schema_version(conn).await? == newest_schema() && sqlx::query_scalar("SELECT gateway.foreign_log()").fetch_one(&mut *conn).await? {
        sqlx::raw_sql("SELECT gateway.own_log()").execute(conn).await?;
    }
    Ok(())
}

/// A revocation that was acknowledged and is then lost works again: what loses commits by itself is refused, what loses
/// them in a failover is warned about.
async fn durable(conn: &mut PgConnection, asserted: bool) -> Result<(), Error> {
    if asserted {
        return Ok(());
    }
    let (fsync, pages, commit, standbys): (String, String, String, String) = sqlx::query_as(
        "SELECT current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit'),
                current_setting('synchronous_standby_names')",
    )
    .fetch_one(&mut *conn)
    .await?;
    for (name, value, lossy) in
        [("fsync", &fsync, fsync == "off"), ("full_page_writes", &pages, pages == "off"), ("synchronous_commit", &commit, commit == "off")]
    {
        if lossy {
            return Err(unusable(format!(
                "`{name}` is `{value}`: a crash of the server could lose a revocation that was acknowledged. Set it to `on`, or, if that cannot be, say `durability = \"asserted\"` in `[store]`"
            )));
        }
    }
    // Only a superuser or a monitor sees others' walsenders in full, but everybody sees that they are there.
    let followers: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_stat_replication").fetch_one(conn).await?;
    if followers > 0 && (standbys.is_empty() || commit == "local") {
        tracing::warn!(
            followers,
            "standbys follow this database without its waiting for them: a failover to one could lose revocations that were acknowledged; set `synchronous_standby_names` (and `synchronous_commit` to `on`), so that at least one has each commit"
        );
    }
    Ok(())
}

/// A clock that a hypervisor stops with the machine shows no time to have passed when it goes on.
fn warn_of_blind_clock() {
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource").unwrap_or_default();
    if source.trim() == "kvm-clock" {
        tracing::warn!(
            "the clock of this machine (kvm-clock) stands still when the machine is stopped or moved: set `freeze_allowance_ms` in `[store]` to the longest that takes, or use the clock source `tsc`"
        );
    }
}

async fn schema_version(conn: &mut PgConnection) -> Result<i32, Error> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('gateway.schema_version') IS NOT NULL").fetch_one(&mut *conn).await?;
    if !there {
        return Ok(0);
    }
    Ok(sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM gateway.schema_version").fetch_one(conn).await?)
}

/// All steps that are missing, in one transaction. Others who try at the same moment wait, and then find them done.
async fn upgrade(conn: &mut PgConnection) -> Result<(), Error> {
    let mut transaction = conn.begin().await?;
    sqlx::raw_sql("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock(1936549750)")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(
        "CREATE SCHEMA IF NOT EXISTS gateway;
         CREATE TABLE IF NOT EXISTS gateway.schema_version (
             version int NOT NULL PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), fingerprint text NOT NULL DEFAULT '')",
    )
    .execute(&mut *transaction)
    .await?;
    let done = schema_version(&mut transaction).await?;
    for (version, step) in (1..).zip(MIGRATIONS) {
        if version <= done {
            continue;
        }
        sqlx::raw_sql(AssertSqlSafe(*step)).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO gateway.schema_version (version) VALUES ($1)").bind(version).execute(&mut *transaction).await?;
    }
    sqlx::raw_sql(
        "UPDATE gateway.schema_version SET fingerprint = gateway.fingerprint()
         WHERE version = (SELECT max(version) FROM gateway.schema_version)",
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}
