-- Practices, users, clients and their secrets; the ledger; who may touch what.
--
-- Whoever changes these rows, also by hand, is held to what is final (the `keep_*` triggers). Moments are finite, for
-- "never" is NULL, and an end in eternity would be read as an error on every node.

CREATE TABLE gateway.practices (
    practice_id text NOT NULL PRIMARY KEY CHECK (length(practice_id) BETWEEN 1 AND 64),
    name        text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    api_access  text NOT NULL DEFAULT 'none' CHECK (api_access IN ('none', 'requested', 'active', 'disabled'))
);

CREATE TABLE gateway.users (
    user_id     text NOT NULL PRIMARY KEY CHECK (length(user_id) BETWEEN 1 AND 64),
    practice_id text NOT NULL REFERENCES gateway.practices,
    role        text NOT NULL CHECK (role IN ('admin', 'member')),
    api_access  boolean NOT NULL DEFAULT false,
    left_at     timestamptz CHECK (isfinite(left_at)),
    -- what the owner of a personal client is held to
    UNIQUE (user_id, practice_id)
);
CREATE INDEX users_of_practice ON gateway.users (practice_id);

CREATE TABLE gateway.clients (
    client_id         text NOT NULL PRIMARY KEY CHECK (client_id ~ '^smd_[0-9A-Za-z]{20}$'),
    practice_id       text NOT NULL REFERENCES gateway.practices,
    owner             text,
    name              text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    scopes            text[] NOT NULL CHECK (cardinality(scopes) > 0 AND array_position(scopes, NULL) IS NULL),
    -- empty: any address
    allowed_addresses cidr[] NOT NULL DEFAULT '{}' CHECK (array_position(allowed_addresses, NULL) IS NULL),
    tier              text CHECK (length(tier) > 0),
    created_at        timestamptz NOT NULL DEFAULT now() CHECK (isfinite(created_at)),
    expires_at        timestamptz CHECK (isfinite(expires_at)),
    revoked_at        timestamptz CHECK (isfinite(revoked_at)),
    -- keys of its own: a JWK set (RFC 7517), or where there is one
    jwks              text CHECK (jwks IS NULL OR jwks::json IS NOT NULL),
    jwks_url          text CHECK (length(jwks_url) > 0),
    CHECK (jwks IS NULL OR jwks_url IS NULL),
    FOREIGN KEY (owner, practice_id) REFERENCES gateway.users (user_id, practice_id)
);
CREATE INDEX clients_of_practice ON gateway.clients (practice_id);
CREATE INDEX clients_of_owner ON gateway.clients (owner) WHERE owner IS NOT NULL;

CREATE TABLE gateway.client_secrets (
    client_id   text NOT NULL REFERENCES gateway.clients,
    generation  bigint NOT NULL CHECK (generation BETWEEN 1 AND 4294967295),
    digest_kind text NOT NULL CHECK (digest_kind IN ('sha256', 'hmac-sha256')),
    digest      bytea NOT NULL CHECK (length(digest) = 32),
    created_at  timestamptz NOT NULL DEFAULT now() CHECK (isfinite(created_at)),
    expires_at  timestamptz CHECK (isfinite(expires_at)),
    -- over for good, whatever the clock of a gateway says; who ends a secret at once sets both
    ended       boolean NOT NULL DEFAULT false CHECK (NOT ended OR expires_at IS NOT NULL),
    PRIMARY KEY (client_id, generation)
);

CREATE SEQUENCE gateway.audit_event_id;
CREATE TABLE gateway.audit_events (
    id          bigint NOT NULL PRIMARY KEY CHECK (id > 0),
    at          timestamptz NOT NULL,
    practice_id text,
    actor       text NOT NULL,
    origin      text NOT NULL,
    action      text NOT NULL,
    target      text NOT NULL,
    -- JSON, but as text: the hash is over these bytes
    before      text NOT NULL CHECK (before::json IS NOT NULL),
    after       text NOT NULL CHECK (after::json IS NOT NULL),
    prev_hash   bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash        bytea NOT NULL CHECK (length(hash) = 32)
);
CREATE INDEX audit_events_of_practice ON gateway.audit_events (practice_id, id);
-- Each event has at most one that follows it, whatever the transactions that write them see of each other.
CREATE UNIQUE INDEX audit_events_line ON gateway.audit_events (coalesce(practice_id, ''), prev_hash);

-- What is final.
--
-- Every function names its path in full, `pg_temp` last: left out it would come first, and a temporary type of the
-- caller's would be taken for a built-in one, with its checks run under the rights of the function.

CREATE FUNCTION gateway.keep_practice() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.practice_id IS DISTINCT FROM OLD.practice_id THEN
        RAISE EXCEPTION 'a practice keeps its id' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_practice BEFORE UPDATE ON gateway.practices FOR EACH ROW EXECUTE FUNCTION gateway.keep_practice();

-- The foreign key says the same, but is silent where replication writes.
CREATE FUNCTION gateway.keep_user() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM gateway.clients WHERE owner = NEW.user_id AND practice_id <> NEW.practice_id) THEN
            RAISE EXCEPTION 'a user keeps their id and practice' USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.user_id IS DISTINCT FROM OLD.user_id OR NEW.practice_id IS DISTINCT FROM OLD.practice_id THEN
        RAISE EXCEPTION 'a user keeps their id and practice' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_user BEFORE INSERT OR UPDATE ON gateway.users FOR EACH ROW EXECUTE FUNCTION gateway.keep_user();

CREATE FUNCTION gateway.keep_client() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a client cannot be deleted: set revoked_at instead' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF NEW.owner IS NOT NULL
            AND NOT EXISTS (SELECT FROM gateway.users WHERE user_id = NEW.owner AND practice_id = NEW.practice_id) THEN
            RAISE EXCEPTION 'the owner of a personal client must be a user of its practice' USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF OLD.revoked_at IS NOT NULL THEN
        RAISE EXCEPTION 'a revoked client stays as it is: revocation is final' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF (NEW.client_id, NEW.practice_id, NEW.owner, NEW.created_at) IS DISTINCT FROM (OLD.client_id, OLD.practice_id, OLD.owner, OLD.created_at) THEN
        RAISE EXCEPTION 'a client keeps its id, practice, owner and date of creation' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_client BEFORE INSERT OR UPDATE OR DELETE ON gateway.clients FOR EACH ROW EXECUTE FUNCTION gateway.keep_client();

CREATE FUNCTION gateway.keep_secret() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'a secret cannot be deleted: set expires_at and ended instead' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM gateway.clients WHERE client_id = NEW.client_id AND revoked_at IS NOT NULL) THEN
            RAISE EXCEPTION 'a revoked client gets no new secret: revocation is final' USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF (NEW.client_id, NEW.generation, NEW.digest_kind, NEW.digest, NEW.created_at)
        IS DISTINCT FROM (OLD.client_id, OLD.generation, OLD.digest_kind, OLD.digest, OLD.created_at) THEN
        RAISE EXCEPTION 'a secret cannot be altered: add one of the next generation' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.expires_at IS NOT NULL AND (NEW.expires_at IS NULL OR NEW.expires_at > OLD.expires_at) THEN
        RAISE EXCEPTION 'a secret that has an end can only end sooner' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF OLD.ended AND NOT NEW.ended THEN
        RAISE EXCEPTION 'a secret that has ended stays ended' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_secret BEFORE INSERT OR UPDATE OR DELETE ON gateway.client_secrets
    FOR EACH ROW EXECUTE FUNCTION gateway.keep_secret();

CREATE FUNCTION gateway.keep_audit() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last gateway.audit_events;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        RAISE EXCEPTION 'an audit event cannot be altered or deleted' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT * INTO last FROM gateway.audit_events WHERE practice_id IS NOT DISTINCT FROM NEW.practice_id ORDER BY id DESC LIMIT 1;
    IF NEW.prev_hash IS DISTINCT FROM coalesce(last.hash, decode(repeat('00', 32), 'hex')) OR NEW.id <= last.id THEN
        RAISE EXCEPTION 'an audit event must follow the last one of its practice' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- A number from far ahead would leave none for the events to come.
    IF NEW.id <> currval('gateway.audit_event_id') THEN
        RAISE EXCEPTION 'an audit event takes the next number of gateway.audit_event_id' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keep_audit BEFORE INSERT OR UPDATE OR DELETE ON gateway.audit_events
    FOR EACH ROW EXECUTE FUNCTION gateway.keep_audit();

CREATE FUNCTION gateway.keep_rows() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'the table gateway.% is not truncated: that would leave no trace of what was taken away', TG_TABLE_NAME
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.practices FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.users FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.clients FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.client_secrets FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();
CREATE TRIGGER keep_rows BEFORE TRUNCATE ON gateway.audit_events FOR EACH STATEMENT EXECUTE FUNCTION gateway.keep_rows();

-- Also where `session_replication_role` says that triggers are not for it.
ALTER TABLE gateway.practices ENABLE ALWAYS TRIGGER keep_practice, ENABLE ALWAYS TRIGGER keep_rows;
ALTER TABLE gateway.users ENABLE ALWAYS TRIGGER keep_user, ENABLE ALWAYS TRIGGER keep_rows;
ALTER TABLE gateway.clients ENABLE ALWAYS TRIGGER keep_client, ENABLE ALWAYS TRIGGER keep_rows;
ALTER TABLE gateway.client_secrets ENABLE ALWAYS TRIGGER keep_secret, ENABLE ALWAYS TRIGGER keep_rows;
ALTER TABLE gateway.audit_events ENABLE ALWAYS TRIGGER keep_audit, ENABLE ALWAYS TRIGGER keep_rows;
