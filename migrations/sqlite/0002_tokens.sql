-- The keys that sign access tokens, the tokens that were revoked by themselves, and the assertions that were used.

CREATE TABLE signing_keys (
    -- the thumbprint (RFC 7638)
    key_id     TEXT    NOT NULL PRIMARY KEY CHECK (length(key_id) = 43 AND key_id NOT GLOB '*[^0-9A-Za-z_-]*'),
    algorithm  TEXT    NOT NULL CHECK (algorithm IN ('EdDSA', 'ES256')),
    -- the private key, encrypted under what is not in the database
    sealed     BLOB    NOT NULL CHECK (length(sealed) > 0),
    created_at INTEGER NOT NULL,
    -- NULL: it is only being made known yet
    signs_from INTEGER,
    revoked_at INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE revoked_tokens (
    token_id   TEXT    NOT NULL PRIMARY KEY
               CHECK (token_id GLOB '????????-????-????-????-????????????'
                      AND length(replace(token_id, '-', '')) = 32 AND replace(token_id, '-', '') NOT GLOB '*[^0-9a-f]*'),
    client_id  TEXT    NOT NULL REFERENCES clients (client_id),
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX revoked_tokens_by_end ON revoked_tokens (expires_at);

-- Nothing that a gateway holds depends on these, so they are no changes.
CREATE TABLE used_assertions (
    client_id TEXT    NOT NULL,
    digest    BLOB    NOT NULL CHECK (length(digest) = 32),
    until     INTEGER NOT NULL,
    PRIMARY KEY (client_id, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX used_assertions_by_end ON used_assertions (until);

CREATE TRIGGER log_key_insert AFTER INSERT ON signing_keys BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('key', NEW.key_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_key_update AFTER UPDATE ON signing_keys BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('key', NEW.key_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_token_insert AFTER INSERT ON revoked_tokens BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('token', NEW.token_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;
CREATE TRIGGER log_token_delete AFTER DELETE ON revoked_tokens BEGIN
    INSERT INTO changes (kind, key, at) VALUES ('token', OLD.token_id, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
END;

CREATE TRIGGER keep_key_insert BEFORE INSERT ON signing_keys
WHEN EXISTS (SELECT 1 FROM signing_keys WHERE key_id = NEW.key_id) BEGIN
    SELECT RAISE(ABORT, 'a signing key cannot be replaced: make another');
END;
CREATE TRIGGER keep_key_revoked BEFORE UPDATE ON signing_keys WHEN OLD.revoked_at IS NOT NULL BEGIN
    SELECT RAISE(ABORT, 'a revoked signing key stays as it is: revocation is final');
END;
CREATE TRIGGER keep_key_identity BEFORE UPDATE ON signing_keys
WHEN NEW.key_id IS NOT OLD.key_id OR NEW.algorithm IS NOT OLD.algorithm OR NEW.sealed IS NOT OLD.sealed
  OR NEW.created_at IS NOT OLD.created_at BEGIN
    SELECT RAISE(ABORT, 'a signing key cannot be altered: make another');
END;
CREATE TRIGGER keep_key_plan BEFORE UPDATE ON signing_keys
WHEN OLD.signs_from IS NOT NULL AND NEW.signs_from IS NOT OLD.signs_from BEGIN
    SELECT RAISE(ABORT, 'a signing key signs from the moment that was planned: revoke it, or plan another');
END;
CREATE TRIGGER keep_key_delete BEFORE DELETE ON signing_keys BEGIN
    SELECT RAISE(ABORT, 'a signing key cannot be deleted: set revoked_at instead');
END;

CREATE TRIGGER keep_token_insert BEFORE INSERT ON revoked_tokens
WHEN EXISTS (SELECT 1 FROM revoked_tokens WHERE token_id = NEW.token_id) BEGIN
    SELECT RAISE(ABORT, 'a revoked token cannot be replaced: revocation is final');
END;
CREATE TRIGGER keep_token_update BEFORE UPDATE ON revoked_tokens BEGIN
    SELECT RAISE(ABORT, 'a revoked token stays as it is: revocation is final');
END;
-- A day, since the clocks of those who are shown a token differ.
CREATE TRIGGER keep_token_delete BEFORE DELETE ON revoked_tokens
WHEN OLD.expires_at >= CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 86400000 BEGIN
    SELECT RAISE(ABORT, 'a revoked token is kept until a day after it would have expired');
END;

-- Whatever the statement wants done about a conflict: the first use stays, and none of another is written.
CREATE TRIGGER keep_assertion_insert BEFORE INSERT ON used_assertions
WHEN EXISTS (SELECT 1 FROM used_assertions WHERE client_id = NEW.client_id AND digest = NEW.digest) BEGIN
    SELECT RAISE(IGNORE);
END;
CREATE TRIGGER keep_assertion_update BEFORE UPDATE ON used_assertions BEGIN
    SELECT RAISE(ABORT, 'a used assertion stays as it is');
END;
CREATE TRIGGER keep_assertion_delete BEFORE DELETE ON used_assertions
WHEN OLD.until >= CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 86400000 BEGIN
    SELECT RAISE(ABORT, 'a used assertion is kept until a day after its end');
END;
