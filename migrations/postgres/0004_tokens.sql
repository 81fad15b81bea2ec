-- The keys that sign access tokens, the tokens that were revoked by themselves, and the assertions that were used.
--
-- The strict mode has no fences for them: who revokes a key or a token by plain SQL calls `gateway.await()` after COMMIT.

CREATE TABLE gateway.signing_keys (
    -- the thumbprint (RFC 7638)
    key_id     text NOT NULL PRIMARY KEY CHECK (key_id ~ '^[0-9A-Za-z_-]{43}$'),
    algorithm  text NOT NULL CHECK (algorithm IN ('EdDSA', 'ES256')),
    -- the private key, encrypted under what is not in the database
    sealed     bytea NOT NULL CHECK (length(sealed) > 0),
    created_at timestamptz NOT NULL DEFAULT now() CHECK (isfinite(created_at)),
    -- NULL: it is only being made known yet
    signs_from timestamptz CHECK (isfinite(signs_from)),
    revoked_at timestamptz CHECK (isfinite(revoked_at))
);

CREATE TABLE gateway.revoked_tokens (
    token_id   text NOT NULL PRIMARY KEY CHECK (token_id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    client_id  text NOT NULL REFERENCES gateway.clients,
    expires_at timestamptz NOT NULL CHECK (isfinite(expires_at)),
    revoked_at timestamptz NOT NULL DEFAULT now() CHECK (isfinite(revoked_at))
);
CREATE INDEX revoked_tokens_by_end ON gateway.revoked_tokens (expires_at);

-- Nothing that a gateway holds depends on these, so they are no changes. Nor do they refer to their clients, whose rows
-- each use would lock.
CREATE TABLE gateway.used_assertions (
    client_id text NOT NULL,
    digest    bytea NOT NULL CHECK (length(digest) = 32),
    until     timestamptz NOT NULL CHECK (isfinite(until)),
    PRIMARY KEY (client_id, digest)
);
CREATE INDEX used_assertions_by_end ON gateway.used_assertions (until);

CREATE FUNCTION gateway.log_keys() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.note('key', (SELECT array_agg(key_id) FROM touched));
    RETURN NULL;
END $$;
CREATE FUNCTION gateway.log_tokens() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.note('token', (SELECT array_agg(token_id) FROM touched));
    RETURN NULL;
END $$;

-- Keys are never deleted, and revoked tokens never updated.
CREATE TRIGGER log_insert AFTER INSERT ON gateway.signing_keys REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_keys();
CREATE TRIGGER log_update AFTER UPDATE ON gateway.signing_keys REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_keys();
CREATE TRIGGER log_insert AFTER INSERT ON gateway.revoked_tokens REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_tokens();
CREATE TRIGGER log_delete AFTER DELETE ON gateway.revoked_tokens REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_tokens();
CREATE TRIGGER log_row AFTER INSERT OR UPDATE ON gateway.signing_keys FOR EACH ROW EXECUTE FUNCTION gateway.log_row('key');
CREATE TRIGGER log_row AFTER INSERT OR DELETE ON gateway.revoked_tokens FOR EACH ROW EXECUTE FUNCTION gateway.log_row('token');

-- What is final.

CREATE FUNCTION gateway.keep_key() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a signing key cannot be deleted: set revoked_at instead' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.revoked_at IS NOT NULL THEN
        RAISE EXCEPTION 'a revoked signing key stays as it is: revocation is final' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.key_id, NEW.algorithm, NEW.sealed, NEW.created_at) IS DISTINCT FROM (OLD.key_id, OLD.algorithm, OLD.sealed, OLD.created_at) THEN
        RAISE EXCEPTION 'a signing key cannot be altered: make another' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.signs_from IS NOT NULL AND NEW.signs_from IS DISTINCT FROM OLD.signs_from THEN
        RAISE EXCEPTION 'a signing key signs from the moment that was planned: revoke it, or plan another'
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_key BEFORE UPDATE OR DELETE ON gateway.signing_keys FOR EACH ROW EXECUTE FUNCTION gateway.keep_key();

-- A day, since the clocks of those who are shown a token differ.
CREATE FUNCTION gateway.keep_token() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'a revoked token stays as it is: revocation is final' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.expires_at >= now() - interval '1 day' THEN
        RAISE EXCEPTION 'a revoked token is kept until a day after it would have expired' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER keep_token BEFORE UPDATE OR DELETE ON gateway.revoked_tokens FOR EACH ROW EXECUTE FUNCTION gateway.keep_token();

CREATE FUNCTION gateway.keep_assertion() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        RAISE EXCEPTION 'a used assertion stays as it is' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.until >= now() - interval '1 day' THEN
        RAISE EXCEPTION 'a used assertion is kept until a day after its end' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN OLD;
END $$;
CREATE TRIGGER keep_assertion BEFORE UPDATE OR DELETE ON gateway.used_assertions FOR EACH ROW EXECUTE FUNCTION gateway.keep_assertion();

CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.signing_keys FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.revoked_tokens FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.used_assertions FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();

ALTER TABLE gateway.signing_keys ENABLE ALWAYS TRIGGER keep_key, ENABLE ALWAYS TRIGGER keep_rows,
    ENABLE ALWAYS TRIGGER log_insert, ENABLE ALWAYS TRIGGER log_update, ENABLE REPLICA TRIGGER log_row;
ALTER TABLE gateway.revoked_tokens ENABLE ALWAYS TRIGGER keep_token, ENABLE ALWAYS TRIGGER keep_rows,
    ENABLE ALWAYS TRIGGER log_insert, ENABLE ALWAYS TRIGGER log_delete, ENABLE REPLICA TRIGGER log_row;
ALTER TABLE gateway.used_assertions ENABLE ALWAYS TRIGGER keep_assertion, ENABLE ALWAYS TRIGGER keep_rows;

-- Forgets some of the revoked tokens and used assertions that nobody needs any more; whether there may be others yet. Not
-- all at once: who calls it has other things to do, and of more than 5000 rows the log would say only that there are many.
CREATE FUNCTION gateway.prune_tokens() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tokens bigint;
    assertions bigint;
BEGIN
    -- Every gateway comes by: none waits for another.
    WITH over AS (
        SELECT token_id FROM gateway.revoked_tokens WHERE expires_at < now() - interval '1 day' LIMIT 2000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway.revoked_tokens USING over WHERE revoked_tokens.token_id = over.token_id;
    GET DIAGNOSTICS tokens = ROW_COUNT;
    WITH over AS (
        SELECT client_id, digest FROM gateway.used_assertions WHERE until < now() - interval '1 day' LIMIT 2000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway.used_assertions USING over
    WHERE used_assertions.client_id = over.client_id AND used_assertions.digest = over.digest;
    GET DIAGNOSTICS assertions = ROW_COUNT;
    RETURN greatest(tokens, assertions) = 2000;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA gateway FROM PUBLIC;
GRANT SELECT ON gateway.signing_keys, gateway.revoked_tokens, gateway.used_assertions TO gateway_node, gateway_management;
GRANT INSERT ON gateway.revoked_tokens, gateway.used_assertions TO gateway_node, gateway_management;
GRANT INSERT, UPDATE ON gateway.signing_keys TO gateway_management;
GRANT EXECUTE ON FUNCTION gateway.prune_tokens() TO gateway_node, gateway_management;
-- A gateway revokes tokens for their clients (RFC 7009), and that is in the ledger like every other revocation.
GRANT SELECT, INSERT ON gateway.audit_events TO gateway_node;
GRANT USAGE ON SEQUENCE gateway.audit_event_id TO gateway_node;
GRANT EXECUTE ON FUNCTION gateway.confirm() TO gateway_node;
