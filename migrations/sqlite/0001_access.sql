-- Practices, users, clients and their secrets; the change log that the gateway follows; the ledger.
--
-- Whoever changes these rows, also by hand, raises a change (the `log_*` triggers) and is held to what is final (the
-- `keep_*` triggers). All tables are STRICT. Those that have a text key are WITHOUT ROWID, so that no row can be
-- replaced under the cover of a rowid. Moments are milliseconds since 1970.

CREATE TABLE practices (
    practice_id TEXT    NOT NULL PRIMARY KEY CHECK (length(practice_id) BETWEEN 1 AND 64),
    name        TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    api_access  TEXT    NOT NULL DEFAULT 'none' CHECK (api_access IN ('none', 'requested', 'active', 'disabled'))
) STRICT, WITHOUT ROWID;

CREATE TABLE users (
    user_id     TEXT    NOT NULL PRIMARY KEY CHECK (length(user_id) BETWEEN 1 AND 64),
    practice_id TEXT    NOT NULL REFERENCES practices (practice_id),
    role        TEXT    NOT NULL CHECK (role IN ('admin', 'member')),
    api_access  INTEGER NOT NULL DEFAULT 0 CHECK (api_access IN (0, 1)),
    left_at     INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX users_of_practice ON users (practice_id);

CREATE TABLE clients (
    client_id         TEXT    NOT NULL PRIMARY KEY
                      CHECK (client_id GLOB 'smd_*' AND length(client_id) = 24 AND substr(client_id, 5) NOT GLOB '*[^0-9A-Za-z]*'),
    practice_id       TEXT    NOT NULL REFERENCES practices (practice_id),
    owner             TEXT    REFERENCES users (user_id),
    name              TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    -- words with one space between them
    scopes            TEXT    NOT NULL CHECK (length(scopes) > 0 AND trim(scopes) = scopes AND scopes NOT GLOB '*  *'),
    -- networks with one space between them; empty: any address
    allowed_addresses TEXT    NOT NULL DEFAULT '' CHECK (trim(allowed_addresses) = allowed_addresses AND allowed_addresses NOT GLOB '*  *'),
    tier              TEXT    CHECK (length(tier) > 0),
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER,
    revoked_at        INTEGER,
    -- keys of its own: a JWK set (RFC 7517), or where there is one
    jwks              TEXT    CHECK (json_valid(jwks)),
    jwks_url          TEXT    CHECK (length(jwks_url) > 0),
    CHECK (jwks IS NULL OR jwks_url IS NULL)
) STRICT, WITHOUT ROWID;
CREATE INDEX clients_of_practice ON clients (practice_id);
CREATE INDEX clients_of_owner ON clients (owner) WHERE owner IS NOT NULL;

CREATE TABLE client_secrets (
    client_id   TEXT    NOT NULL REFERENCES clients (client_id),
    generation  INTEGER NOT NULL CHECK (generation BETWEEN 1 AND 4294967295),
    digest_kind TEXT    NOT NULL CHECK (digest_kind IN ('sha256', 'hmac-sha256')),
    digest      BLOB    NOT NULL CHECK (length(digest) = 32),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    -- over for good, whatever a clock says; who ends a secret at once sets both
    ended       INTEGER NOT NULL DEFAULT 0 CHECK (ended IN (0, 1) AND (ended = 0 OR expires_at IS NOT NULL)),
    PRIMARY KEY (client_id, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
    revision INTEGER PRIMARY KEY AUTOINCREMENT CHECK (revision > 0),
    kind     TEXT    NOT NULL CHECK (kind IN ('practice', 'user', 'client', 'key', 'token')),
    key      TEXT    NOT NULL,
    at       INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    node_id    TEXT    NOT NULL PRIMARY KEY,
    started_at INTEGER NOT NULL,
    applied    INTEGER NOT NULL DEFAULT 0,
    lease_ms   INTEGER NOT NULL CHECK (lease_ms BETWEEN 1 AND 86400000),
    -- which lock file the node holds, as `device:inode`: a lock on another file proves nothing about the node
    lock_file  TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_events (
    id          INTEGER PRIMARY KEY CHECK (id > 0),
    at          INTEGER NOT NULL,
    practice_id TEXT,
    actor       TEXT    NOT NULL,
    origin      TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    target      TEXT    NOT NULL,
    before      TEXT    NOT NULL CHECK (json_valid(before)),
    after       TEXT    NOT NULL CHECK (json_valid(after)),
    prev_hash   BLOB    NOT NULL CHECK (length(prev_hash) = 32),
    hash        BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE INDEX audit_events_of_practice ON audit_events (practice_id, id);

-- Every change is logged. `julianday` rather than `unixepoch`: the sqlite3 of an older system must be able to run it.

CREATE TRIGGER log_practice_insert AFTER INSERT ON practices BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('practice', NEW.practice_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_practice_update AFTER UPDATE ON practices BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('practice', NEW.practice_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_practice_delete AFTER DELETE ON practices BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('practice', OLD.practice_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_user_insert AFTER INSERT ON users BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('user', NEW.user_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_user_update AFTER UPDATE ON users BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('user', NEW.user_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_user_delete AFTER DELETE ON users BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('user', OLD.user_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_client_insert AFTER INSERT ON clients BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('client', NEW.client_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_client_update AFTER UPDATE ON clients BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('client', NEW.client_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_client_delete AFTER DELETE ON clients BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('client', OLD.client_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_secret_insert AFTER INSERT ON client_secrets BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('client', NEW.client_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_secret_update AFTER UPDATE ON client_secrets BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('client', NEW.client_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_secret_delete AFTER DELETE ON client_secrets BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('client', OLD.client_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;

-- What is final. A replaced row runs no DELETE trigger, but BEFORE INSERT runs before anything is replaced.

CREATE TRIGGER keep_practice_id BEFORE UPDATE ON practices WHEN NEW.practice_id IS NOT OLD.practice_id BEGIN
    SELECT RAISE(ABORT, 'a practice keeps its id');
END;

CREATE TRIGGER keep_user_practice BEFORE UPDATE ON users
WHEN NEW.user_id IS NOT OLD.user_id OR NEW.practice_id IS NOT OLD.practice_id BEGIN
    SELECT RAISE(ABORT, 'a user keeps their id and practice');
END;
CREATE TRIGGER keep_user_practice_insert BEFORE INSERT ON users
WHEN EXISTS (SELECT 1 FROM users WHERE user_id = NEW.user_id AND practice_id IS NOT NEW.practice_id)
  OR EXISTS (SELECT 1 FROM clients WHERE owner = NEW.user_id AND practice_id IS NOT NEW.practice_id) BEGIN
    SELECT RAISE(ABORT, 'a user keeps their id and practice');
END;

CREATE TRIGGER keep_client_insert BEFORE INSERT ON clients
WHEN EXISTS (SELECT 1 FROM clients WHERE client_id = NEW.client_id) BEGIN
    SELECT RAISE(ABORT, 'a client cannot be replaced: its id is taken for good');
END;
CREATE TRIGGER keep_client_owner_insert BEFORE INSERT ON clients
WHEN NEW.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM users WHERE user_id = NEW.owner AND practice_id = NEW.practice_id) BEGIN
    SELECT RAISE(ABORT, 'the owner of a personal client must be a user of its practice');
END;
CREATE TRIGGER keep_client_revoked BEFORE UPDATE ON clients WHEN OLD.revoked_at IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a revoked client stays as it is: revocation is final');
END;
CREATE TRIGGER keep_client_identity BEFORE UPDATE ON clients
WHEN NEW.client_id IS NOT OLD.client_id OR NEW.practice_id IS NOT OLD.practice_id OR NEW.owner IS NOT OLD.owner
  OR NEW.created_at IS NOT OLD.created_at BEGIN
    SELECT RAISE(ABORT, 'a client keeps its id, practice, owner and date of creation');
END;
CREATE TRIGGER keep_client_delete BEFORE DELETE ON clients BEGIN
    SELECT RAISE(ABORT, 'a client cannot be deleted: set revoked_at instead');
END;

CREATE TRIGGER keep_secret_insert BEFORE INSERT ON client_secrets
WHEN EXISTS (SELECT 1 FROM client_secrets WHERE client_id = NEW.client_id AND generation = NEW.generation) BEGIN
    SELECT RAISE(ABORT, 'a secret cannot be replaced: add one of the next generation');
END;
CREATE TRIGGER keep_secret_revoked BEFORE INSERT ON client_secrets
WHEN EXISTS (SELECT 1 FROM clients WHERE client_id = NEW.client_id AND revoked_at IS NOT NULL) BEGIN
    SELECT RAISE(ABORT, 'a revoked client gets no new secret: revocation is final');
END;
CREATE TRIGGER keep_secret_identity BEFORE UPDATE ON client_secrets
WHEN NEW.client_id IS NOT OLD.client_id OR NEW.generation IS NOT OLD.generation OR NEW.digest_kind IS NOT OLD.digest_kind
  OR NEW.digest IS NOT OLD.digest OR NEW.created_at IS NOT OLD.created_at BEGIN
    SELECT RAISE(ABORT, 'a secret cannot be altered: add one of the next generation');
END;
CREATE TRIGGER keep_secret_end BEFORE UPDATE ON client_secrets
WHEN OLD.expires_at IS NOT NULL AND (NEW.expires_at IS NULL OR NEW.expires_at > OLD.expires_at) BEGIN
    SELECT RAISE(ABORT, 'a secret that has an end can only end sooner');
END;
CREATE TRIGGER keep_secret_ended BEFORE UPDATE ON client_secrets WHEN OLD.ended AND NOT NEW.ended BEGIN
    SELECT RAISE(ABORT, 'a secret that has ended stays ended');
END;
CREATE TRIGGER keep_secret_delete BEFORE DELETE ON client_secrets BEGIN
    SELECT RAISE(ABORT, 'a secret cannot be deleted: set expires_at and ended instead');
END;

-- In BEFORE INSERT, a revision that the database will choose is still -1.
CREATE TRIGGER keep_change_insert BEFORE INSERT ON changes WHEN NEW.revision IS NOT NULL AND NEW.revision <> -1 BEGIN
    SELECT RAISE(ABORT, 'the database alone numbers the changes');
END;
CREATE TRIGGER keep_change_update BEFORE UPDATE ON changes BEGIN
    SELECT RAISE(ABORT, 'a logged change stays as it is');
END;
CREATE TRIGGER keep_change_delete BEFORE DELETE ON changes
WHEN OLD.revision > (SELECT max(revision) FROM changes) - 100000 BEGIN
    SELECT RAISE(ABORT, 'the newest 100000 changes are kept');
END;

CREATE TRIGGER keep_audit_insert BEFORE INSERT ON audit_events
WHEN EXISTS (SELECT 1 FROM audit_events WHERE id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'an audit event cannot be replaced');
END;
CREATE TRIGGER keep_audit_chain BEFORE INSERT ON audit_events
WHEN NEW.prev_hash IS NOT coalesce(
    (SELECT hash FROM audit_events WHERE practice_id IS NEW.practice_id ORDER BY id DESC LIMIT 1), zeroblob(32)) BEGIN
    SELECT RAISE(ABORT, 'an audit event must follow the last one of its practice');
END;
CREATE TRIGGER keep_audit_update BEFORE UPDATE ON audit_events BEGIN
    SELECT RAISE(ABORT, 'an audit event cannot be altered');
END;
CREATE TRIGGER keep_audit_delete BEFORE DELETE ON audit_events BEGIN
    SELECT RAISE(ABORT, 'an audit event cannot be deleted');
END;
