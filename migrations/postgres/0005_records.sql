-- What the management of a practice needs to remember: names of people, mail to be sent, usage, refusals, requests that
-- may come twice. Access depends on none of it, so none of it is a change.

-- Names and e-mail of users.
CREATE TABLE gateway.people (
    user_id text NOT NULL PRIMARY KEY REFERENCES gateway.users ON DELETE CASCADE,
    name    text CHECK (length(name) BETWEEN 1 AND 200),
    email   text CHECK (length(email) BETWEEN 3 AND 254)
);

-- Clients are shown newest first; this serves what the one before it did.
CREATE INDEX clients_by_age ON gateway.clients (practice_id, created_at, client_id COLLATE "C");
DROP INDEX gateway.clients_of_practice;

-- What clients did, by the day (UTC). These do not refer to clients, whose rows each use would lock.
CREATE TABLE gateway.usage_daily (
    day       date NOT NULL,
    client_id text NOT NULL,
    -- by which a request was admitted, or which it lacked; empty: none was needed
    scope     text NOT NULL,
    requests  bigint NOT NULL DEFAULT 0 CHECK (requests >= 0),
    refused   bigint NOT NULL DEFAULT 0 CHECK (refused >= 0),
    PRIMARY KEY (day, client_id, scope)
) WITH (fillfactor = 80);
CREATE INDEX usage_daily_of_client ON gateway.usage_daily (client_id, day);

CREATE TABLE gateway.secret_uses (
    client_id    text NOT NULL,
    -- 0: by a key of the client's own
    generation   bigint NOT NULL CHECK (generation BETWEEN 0 AND 4294967295),
    last_used_at timestamptz NOT NULL CHECK (isfinite(last_used_at)),
    address      inet NOT NULL,
    PRIMARY KEY (client_id, generation)
) WITH (fillfactor = 80);

-- Requests that were refused, the newest of each practice. Whoever sends a request may have chosen its id, so that alone
-- tells no two apart.
CREATE TABLE gateway.denials (
    request_id  text COLLATE "C" NOT NULL CHECK (length(request_id) BETWEEN 1 AND 64),
    at          timestamptz NOT NULL CHECK (isfinite(at)),
    practice_id text NOT NULL,
    client_id   text,
    user_id     text,
    -- of a personal client, who alone is shown the row
    owner       text,
    route       text NOT NULL,
    method      text NOT NULL,
    path        text NOT NULL,
    reason      text NOT NULL,
    status      int NOT NULL CHECK (status BETWEEN 100 AND 599),
    address     inet NOT NULL,
    -- the newest change in force on the node that refused
    revision    bigint NOT NULL CHECK (revision >= 0),
    PRIMARY KEY (practice_id, at, request_id)
);
CREATE INDEX denials_by_request ON gateway.denials (request_id);

-- Requests of callers who may send them twice, and how they were answered.
CREATE TABLE gateway.idempotency_keys (
    caller         text NOT NULL CHECK (length(caller) BETWEEN 1 AND 200),
    key_digest     bytea NOT NULL CHECK (length(key_digest) = 32),
    request_digest bytea NOT NULL CHECK (length(request_digest) = 32),
    created_at     timestamptz NOT NULL DEFAULT now(),
    -- NULL: not answered yet
    status         int CHECK (status BETWEEN 100 AND 599),
    body           text,
    PRIMARY KEY (caller, key_digest),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_by_age ON gateway.idempotency_keys (created_at);

-- Mail that is to be sent, written in the transaction that is the cause of it.
CREATE TABLE gateway.email_outbox (
    id              bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at      timestamptz NOT NULL DEFAULT now(),
    kind            text NOT NULL CHECK (kind IN
        ('access_requested', 'access_approved', 'access_disabled', 'secret_regenerated', 'client_revoked', 'ended_secret_used')),
    practice_id     text NOT NULL,
    client_id       text,
    -- NULL: the operators
    recipient_user  text,
    details         text NOT NULL CHECK (details::json IS NOT NULL),
    attempts        int NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    claimed_by      text,
    claimed_until   timestamptz,
    sent_at         timestamptz,
    given_up_at     timestamptz,
    last_error      text
);
CREATE INDEX email_outbox_waiting ON gateway.email_outbox (next_attempt_at, id) WHERE sent_at IS NULL AND given_up_at IS NULL;

-- On which day (UTC) somebody was last told that an ended secret of a client is still used.
CREATE TABLE gateway.ended_secret_told (
    client_id text NOT NULL PRIMARY KEY,
    day       date NOT NULL
);

-- A gateway sees that an ended secret is used, but has no business with names and mail: it may call this, and no more.
-- Whether mail about it was queued: once for a client and day at most.
CREATE FUNCTION gateway.queue_ended_secret_used(of_client text, of_day date, told text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    client gateway.clients;
BEGIN
    SELECT * INTO client FROM gateway.clients WHERE client_id = of_client;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    INSERT INTO gateway.ended_secret_told AS before (client_id, day) VALUES (of_client, of_day)
        ON CONFLICT (client_id) DO UPDATE SET day = excluded.day WHERE before.day < excluded.day;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO gateway.email_outbox (kind, practice_id, client_id, recipient_user, details)
        SELECT 'ended_secret_used', client.practice_id, of_client, user_id, told
        FROM gateway.users JOIN gateway.people USING (user_id)
        WHERE practice_id = client.practice_id AND left_at IS NULL AND email IS NOT NULL
            AND CASE WHEN client.owner IS NULL THEN role = 'admin' ELSE user_id = client.owner END
        ORDER BY user_id COLLATE "C";
    RETURN true;
END $$;

-- Forgets some of the denials of a practice beyond the newest; whether there may be others yet.
CREATE FUNCTION gateway.prune_denials(of_practice text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    forgotten bigint;
BEGIN
    -- Every gateway comes by: none waits for another.
    WITH over AS (
        SELECT at, request_id FROM gateway.denials WHERE practice_id = of_practice
            AND (at, request_id) < (
                SELECT at, request_id FROM gateway.denials WHERE practice_id = of_practice
                ORDER BY at DESC, request_id DESC OFFSET 9999 LIMIT 1)
        LIMIT 2000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway.denials USING over
    WHERE denials.practice_id = of_practice AND denials.at = over.at AND denials.request_id = over.request_id;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten = 2000;
END $$;

-- Forgets some of the revoked tokens, used assertions and requests that nobody needs any more; whether there may be others
-- yet. Not all at once: who calls it has other things to do, and of more than 5000 rows the log would say only that there
-- are many.
CREATE OR REPLACE FUNCTION gateway.prune_tokens() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tokens bigint;
    assertions bigint;
    requests bigint;
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
    WITH over AS (
        SELECT caller, key_digest FROM gateway.idempotency_keys WHERE created_at < now() - interval '1 day' LIMIT 2000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway.idempotency_keys USING over
    WHERE idempotency_keys.caller = over.caller AND idempotency_keys.key_digest = over.key_digest;
    GET DIAGNOSTICS requests = ROW_COUNT;
    RETURN greatest(tokens, assertions, requests) = 2000;
END $$;

-- As before, but a statement may write several events, whose numbers were all drawn before it; and the last event of the
-- practice is found by its index, where `IS NOT DISTINCT FROM` would look through the ledger for it.
CREATE OR REPLACE FUNCTION gateway.keep_audit() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last gateway.audit_events;
BEGIN
    IF TG_OP <> 'INSERT' THEN
        RAISE EXCEPTION 'an audit event cannot be altered or deleted' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF NEW.practice_id IS NULL THEN
        SELECT * INTO last FROM gateway.audit_events WHERE practice_id IS NULL ORDER BY id DESC LIMIT 1;
    ELSE
        SELECT * INTO last FROM gateway.audit_events WHERE practice_id = NEW.practice_id ORDER BY id DESC LIMIT 1;
    END IF;
    IF NEW.prev_hash IS DISTINCT FROM coalesce(last.hash, decode(repeat('00', 32), 'hex')) OR NEW.id <= last.id THEN
        RAISE EXCEPTION 'an audit event must follow the last one of its practice' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- A number from far ahead would leave none for the events to come.
    IF NEW.id > currval('gateway.audit_event_id') THEN
        RAISE EXCEPTION 'an audit event takes the next number of gateway.audit_event_id' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA gateway FROM PUBLIC;
-- What serves counts, and says what it refused; it reads none of it but what it adds to.
GRANT SELECT, INSERT ON gateway.usage_daily, gateway.secret_uses TO gateway_node;
GRANT UPDATE (requests, refused) ON gateway.usage_daily TO gateway_node;
GRANT UPDATE (last_used_at, address) ON gateway.secret_uses TO gateway_node;
GRANT INSERT ON gateway.denials TO gateway_node;
GRANT EXECUTE ON FUNCTION gateway.prune_denials(text), gateway.queue_ended_secret_used(text, date, text) TO gateway_node;
-- What manages reads all of it, and sends the mail.
GRANT SELECT ON gateway.people, gateway.usage_daily, gateway.secret_uses, gateway.denials, gateway.idempotency_keys, gateway.email_outbox TO gateway_management;
GRANT INSERT ON gateway.people, gateway.idempotency_keys, gateway.email_outbox TO gateway_management;
GRANT UPDATE (name, email) ON gateway.people TO gateway_management;
GRANT UPDATE (request_digest, created_at, status, body), DELETE ON gateway.idempotency_keys TO gateway_management;
GRANT UPDATE (attempts, next_attempt_at, claimed_by, claimed_until, sent_at, given_up_at, last_error) ON gateway.email_outbox TO gateway_management;
