-- What the management of a practice needs to remember: names of people, mail to be sent, usage, refusals, requests that
-- may come twice. Access depends on none of it, so none of it is a change.

-- Names and e-mail of users.
CREATE TABLE people (
    user_id TEXT NOT NULL PRIMARY KEY REFERENCES users (user_id) ON DELETE CASCADE,
    name    TEXT CHECK (length(name) BETWEEN 1 AND 200),
    email   TEXT CHECK (length(email) BETWEEN 3 AND 254)
) STRICT, WITHOUT ROWID;

-- Clients are shown newest first; this serves what the one before it did.
CREATE INDEX clients_by_age ON clients (practice_id, created_at, client_id);
DROP INDEX clients_of_practice;

-- What clients did, by the day (UTC, counted from 1970-01-01).
CREATE TABLE usage_daily (
    day       INTEGER NOT NULL,
    client_id TEXT    NOT NULL,
    -- by which a request was admitted, or which it lacked; empty: none was needed
    scope     TEXT    NOT NULL,
    requests  INTEGER NOT NULL DEFAULT 0 CHECK (requests >= 0),
    refused   INTEGER NOT NULL DEFAULT 0 CHECK (refused >= 0),
    PRIMARY KEY (day, client_id, scope)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_daily_of_client ON usage_daily (client_id, day);

CREATE TABLE secret_uses (
    client_id    TEXT    NOT NULL,
    -- 0: by a key of the client's own
    generation   INTEGER NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    last_used_at INTEGER NOT NULL,
    address      TEXT    NOT NULL,
    PRIMARY KEY (client_id, generation)
) STRICT, WITHOUT ROWID;

-- Requests that were refused, the newest of each practice. Whoever sends a request may have chosen its id, so that alone
-- tells no two apart.
CREATE TABLE denials (
    request_id  TEXT    NOT NULL CHECK (length(request_id) BETWEEN 1 AND 64),
    at          INTEGER NOT NULL,
    practice_id TEXT    NOT NULL,
    client_id   TEXT,
    user_id     TEXT,
    -- of a personal client, who alone is shown the row
    owner       TEXT,
    route       TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    status      INTEGER NOT NULL CHECK (status BETWEEN 100 AND 599),
    address     TEXT    NOT NULL,
    -- the newest change in force on the node that refused
    revision    INTEGER NOT NULL CHECK (revision >= 0),
    PRIMARY KEY (practice_id, at, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX denials_by_request ON denials (request_id);

-- Requests of callers who may send them twice, and how they were answered.
CREATE TABLE idempotency_keys (
    caller         TEXT    NOT NULL CHECK (length(caller) BETWEEN 1 AND 200),
    key_digest     BLOB    NOT NULL CHECK (length(key_digest) = 32),
    request_digest BLOB    NOT NULL CHECK (length(request_digest) = 32),
    created_at     INTEGER NOT NULL,
    -- NULL: not answered yet
    status         INTEGER CHECK (status BETWEEN 100 AND 599),
    body           TEXT,
    PRIMARY KEY (caller, key_digest),
    CHECK ((status IS NULL) = (body IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Mail that is to be sent, written in the transaction that is the cause of it.
CREATE TABLE email_outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    created_at      INTEGER NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN
        ('access_requested', 'access_approved', 'access_disabled', 'secret_regenerated', 'client_revoked', 'ended_secret_used')),
    practice_id     TEXT    NOT NULL,
    client_id       TEXT,
    -- NULL: the operators
    recipient_user  TEXT,
    details         TEXT    NOT NULL CHECK (json_valid(details)),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    claimed_by      TEXT,
    claimed_until   INTEGER,
    sent_at         INTEGER,
    given_up_at     INTEGER,
    last_error      TEXT
) STRICT;
CREATE INDEX email_outbox_waiting ON email_outbox (next_attempt_at, id) WHERE sent_at IS NULL AND given_up_at IS NULL;

-- On which day (UTC) somebody was last told that an ended secret of a client is still used.
CREATE TABLE ended_secret_told (
    client_id TEXT    NOT NULL PRIMARY KEY,
    day       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
