-- The strict mode, off until `gateway.strict(true)`: no COMMIT of plain SQL that takes access away returns before the
-- change is in force on every gateway. What it takes access from is fenced first, in a transaction of its own (dblink):
-- gateways that see a fence whose transaction they do not see yet admit nobody by it, and the COMMIT waits for all of them.
-- A commit and the end of its fence are one moment, for a gateway reads both in one view. A fence whose transaction came
-- to nothing is lifted by the next heartbeat.
--
-- The store's own transactions are not fenced (`gateway.waits`): who makes them waits for a receipt.

CREATE TABLE gateway.fences (
    xid  xid8 NOT NULL,
    kind text NOT NULL CHECK (kind IN ('practice', 'user', 'client')),
    key  text NOT NULL,
    PRIMARY KEY (kind, key, xid)
);

CREATE FUNCTION gateway.narrow(of_kind text, keys text[]) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(cardinality(keys), 0) = 0 OR current_setting('gateway.waits', true) = 'on' THEN
        RETURN;
    END IF;
    -- Already numbered, so the fence would come after the lock that it must come before.
    IF EXISTS (SELECT FROM gateway.change_txns WHERE xid = pg_current_xact_id() AND seq IS NOT NULL) THEN
        RAISE EXCEPTION 'in strict mode access is not taken away after SET CONSTRAINTS … IMMEDIATE'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Leave the constraints of gateway.change_txns deferred to the COMMIT.';
    END IF;
    INSERT INTO gateway.narrowings SELECT DISTINCT pg_current_xact_id(), of_kind, k FROM unnest(keys) AS k ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION gateway.narrow_practices() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.narrow('practice', (SELECT array_agg(practice_id) FROM was JOIN now USING (practice_id)
        WHERE was.api_access = 'active' AND now.api_access <> 'active'));
    RETURN NULL;
END $$;
CREATE FUNCTION gateway.narrow_users() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.narrow('user', (SELECT array_agg(user_id) FROM was JOIN now USING (user_id)
        WHERE (was.api_access AND NOT now.api_access) OR (was.left_at IS NULL AND now.left_at IS NOT NULL)));
    RETURN NULL;
END $$;
CREATE FUNCTION gateway.narrow_clients() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.narrow('client', (SELECT array_agg(client_id) FROM was JOIN now USING (client_id)
        WHERE (was.revoked_at IS NULL AND now.revoked_at IS NOT NULL)
            OR NOT was.scopes <@ now.scopes
            OR coalesce(now.expires_at, 'infinity') < coalesce(was.expires_at, 'infinity')
            -- Whether a key was taken away or one was put beside it is more than SQL can tell.
            OR (was.jwks IS NOT NULL AND now.jwks IS DISTINCT FROM was.jwks)
            OR (was.jwks_url IS NOT NULL AND now.jwks_url IS DISTINCT FROM was.jwks_url)
            -- An empty list is every address.
            OR (cardinality(now.allowed_addresses) > 0 AND (cardinality(was.allowed_addresses) = 0
                OR EXISTS (SELECT FROM unnest(was.allowed_addresses) AS had
                    WHERE NOT EXISTS (SELECT FROM unnest(now.allowed_addresses) AS has WHERE had <<= has))))));
    RETURN NULL;
END $$;
CREATE FUNCTION gateway.narrow_secrets() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.narrow('client', (SELECT array_agg(DISTINCT client_id) FROM was JOIN now USING (client_id, generation)
        WHERE (now.ended AND NOT was.ended) OR coalesce(now.expires_at, 'infinity') < coalesce(was.expires_at, 'infinity')));
    RETURN NULL;
END $$;
CREATE FUNCTION gateway.narrow_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_TABLE_NAME = 'practices' THEN
        PERFORM gateway.narrow('practice', (SELECT array_agg(practice_id) FROM was));
    ELSE
        PERFORM gateway.narrow('user', (SELECT array_agg(user_id) FROM was));
    END IF;
    RETURN NULL;
END $$;

-- Behind `log_…`, by their names. Clients and secrets are never deleted.
CREATE TRIGGER strict_update AFTER UPDATE ON gateway.practices REFERENCING OLD TABLE AS was NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION gateway.narrow_practices();
CREATE TRIGGER strict_update AFTER UPDATE ON gateway.users REFERENCING OLD TABLE AS was NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION gateway.narrow_users();
CREATE TRIGGER strict_update AFTER UPDATE ON gateway.clients REFERENCING OLD TABLE AS was NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION gateway.narrow_clients();
CREATE TRIGGER strict_update AFTER UPDATE ON gateway.client_secrets REFERENCING OLD TABLE AS was NEW TABLE AS now FOR EACH STATEMENT EXECUTE FUNCTION gateway.narrow_secrets();
CREATE TRIGGER strict_delete AFTER DELETE ON gateway.practices REFERENCING OLD TABLE AS was FOR EACH STATEMENT EXECUTE FUNCTION gateway.narrow_deleted();
CREATE TRIGGER strict_delete AFTER DELETE ON gateway.users REFERENCING OLD TABLE AS was FOR EACH STATEMENT EXECUTE FUNCTION gateway.narrow_deleted();

-- Which database of which server, in which of its histories.
CREATE FUNCTION gateway.place() RETURNS text LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(' ', gateway.history(), current_database())
$$;

-- Puts up fences for a transaction that is still running, and tells the gateways.
CREATE FUNCTION gateway.fence(place text, of_xid xid8, kinds text[], keys text[]) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- Where the tables were copied, or the primary is another one, the line may still lead to where they came from.
    IF place <> gateway.place() THEN
        RAISE EXCEPTION 'the foreign server gateway_fence is another database' USING HINT = 'ALTER SERVER gateway_fence OPTIONS (SET host …, SET dbname …);';
    END IF;
    -- For one that is over, or that there will be some day, a fence would stand for nothing, or for ever.
    IF pg_xact_status(of_xid) IS DISTINCT FROM 'in progress' THEN
        RAISE EXCEPTION 'transaction % is not running', of_xid USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    INSERT INTO gateway.fences (xid, kind, key) SELECT of_xid, kind, key FROM unnest(kinds, keys) AS fenced (kind, key)
        ON CONFLICT DO NOTHING;
    PERFORM gateway.note(kind, array_agg(key)) FROM unnest(kinds, keys) AS fenced (kind, key) GROUP BY kind;
END $$;

-- Takes down the fences of transactions that have ended, and tells the gateways where the transaction itself has not: it
-- came to nothing, or what was fenced did, as after ROLLBACK TO.
CREATE FUNCTION gateway.lift() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    undone bigint;
BEGIN
    IF EXISTS (SELECT FROM gateway.fences WHERE pg_visible_in_snapshot(xid, pg_current_snapshot())) THEN
        WITH over AS (
            SELECT kind, key, xid FROM gateway.fences WHERE pg_visible_in_snapshot(xid, pg_current_snapshot()) FOR UPDATE SKIP LOCKED
        ), lifted AS (
            DELETE FROM gateway.fences USING over
            WHERE (fences.kind, fences.key, fences.xid) = (over.kind, over.key, over.xid)
            RETURNING fences.kind, fences.key, fences.xid
        )
        SELECT count(gateway.note(kind, keys)::text) INTO undone FROM (
            SELECT kind, array_agg(key) AS keys FROM lifted
            WHERE NOT EXISTS (SELECT FROM gateway.change_rows AS told WHERE told.xid = lifted.xid AND told.kind = lifted.kind AND told.key IN (lifted.key, '*'))
            GROUP BY kind) AS untold;
    END IF;
END $$;

-- The answer to one question, asked in a session of its own; NULL if it has none.
CREATE FUNCTION gateway.aside(line text, question text) RETURNS text LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    place text := (SELECT extnamespace::regnamespace::text FROM pg_extension WHERE extname = 'dblink');
    answer text;
BEGIN
    IF question = 'connect' THEN
        EXECUTE format('SELECT %s.dblink_connect($1::text, $2::text)', place) USING line, 'gateway_fence';
        -- Who waits for us while the line waits for them is seen by nobody: so the line does not wait for long.
        PERFORM gateway.aside(line, $$SELECT concat(set_config('lock_timeout', '2s', false), set_config('statement_timeout', '10s', false),
            set_config('default_transaction_read_only', 'off', false))$$);
    ELSIF question = 'disconnect' THEN
        EXECUTE format('SELECT %s.dblink_disconnect($1::text) WHERE $1 = ANY (%1$s.dblink_get_connections())', place) USING line;
    ELSE
        EXECUTE format('SELECT told FROM %s.dblink($1::text, $2::text) AS answer (told text)', place) INTO answer USING line, question;
    END IF;
    RETURN answer;
END $function$;

CREATE FUNCTION gateway.strict_commit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    line CONSTANT text := 'gateway_fence';
    patience CONSTANT interval := coalesce(nullif(current_setting('gateway.patience', true), ''), '1 minute')::interval;
    until CONSTANT timestamptz := clock_timestamp() + patience;
    kinds text[];
    keys text[];
    wanted text;
    behind text;
BEGIN
    WITH taken AS (DELETE FROM gateway.narrowings WHERE xid = NEW.xid RETURNING kind, key)
    SELECT array_agg(kind), array_agg(key) INTO kinds, keys FROM taken;
    IF keys IS NULL THEN
        RETURN NULL;
    END IF;
    -- One that an earlier COMMIT was cancelled out of.
    PERFORM gateway.aside(line, 'disconnect');
    -- Whoever writes could use a line that is left open: it is closed whatever happens, and has few rights.
    BEGIN
        PERFORM gateway.aside(line, 'connect');
        PERFORM gateway.aside(line, format('SELECT gateway.fence(%L, %L::xid8, %L::text[], %L::text[])::text', gateway.place(), NEW.xid, kinds, keys));
        wanted := gateway.aside(line, 'SELECT gateway.head()::text');
        LOOP
            behind := gateway.aside(line, format('SELECT gateway.behind(%L::bigint, 3)::text', wanted));
            EXIT WHEN behind = '0';
            IF clock_timestamp() > until THEN
                RAISE EXCEPTION 'nothing is changed: % gateway(s) did not learn of it within %', behind, patience
                    USING ERRCODE = 'lock_not_available', HINT = 'Is a gateway running? Only a running one takes a dead one out of gateway.nodes; and one whose `schema` is below 3 there is too old. SET gateway.patience for another time.';
            END IF;
            PERFORM pg_sleep(0.002);
        END LOOP;
    EXCEPTION
        WHEN OTHERS OR query_canceled THEN
            PERFORM gateway.aside(line, 'disconnect');
            RAISE;
    END;
    PERFORM gateway.aside(line, 'disconnect');
    RETURN NULL;
END $$;
-- Of several, the one whose name comes first fires first: this one has to come before `stamp`.
CREATE CONSTRAINT TRIGGER a_strict_commit AFTER INSERT ON gateway.change_txns
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gateway.strict_commit();

ALTER TABLE gateway.practices DISABLE TRIGGER strict_update, DISABLE TRIGGER strict_delete;
ALTER TABLE gateway.users DISABLE TRIGGER strict_update, DISABLE TRIGGER strict_delete;
ALTER TABLE gateway.clients DISABLE TRIGGER strict_update;
ALTER TABLE gateway.client_secrets DISABLE TRIGGER strict_update;
ALTER TABLE gateway.change_txns DISABLE TRIGGER a_strict_commit;

-- Turns the strict mode on or off; for the owner of the tables. Waits for transactions that are changing them.
CREATE FUNCTION gateway.strict(wanted boolean) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    owner CONSTANT name := (SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE oid = 'gateway.strict_commit()'::regprocedure);
    how CONSTANT text := CASE WHEN wanted THEN 'ENABLE ALWAYS' ELSE 'DISABLE' END;
BEGIN
    IF wanted THEN
        IF current_user <> owner THEN
            RAISE EXCEPTION 'the strict mode is turned on by the owner of the schema gateway, as whom it connects'
                USING HINT = format('SET ROLE %I;', owner);
        END IF;
        IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'dblink') THEN
            RAISE EXCEPTION 'the strict mode needs the extension dblink' USING HINT = 'CREATE EXTENSION dblink;';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_foreign_server WHERE srvname = 'gateway_fence') THEN
            RAISE EXCEPTION 'the strict mode needs a foreign server gateway_fence, which is this very database'
                USING HINT = format('CREATE SERVER gateway_fence FOREIGN DATA WRAPPER dblink_fdw OPTIONS (host ''…'', port ''…'', dbname %L);', current_database());
        END IF;
        IF NOT EXISTS (SELECT FROM pg_user_mappings WHERE srvname = 'gateway_fence' AND usename IN (current_user, 'public')) THEN
            RAISE EXCEPTION 'the strict mode needs to know as whom to connect to gateway_fence'
                USING HINT = format('CREATE USER MAPPING FOR %I SERVER gateway_fence OPTIONS (user ''…'', password ''…''); for a role of its own that has gateway_management and nothing else.', current_user);
        END IF;
        PERFORM gateway.aside('gateway_proof', 'disconnect');
        BEGIN
            PERFORM gateway.aside('gateway_proof', 'connect');
            IF gateway.aside('gateway_proof', format('SELECT (rolsuper OR pg_has_role(%L, ''MEMBER''))::text FROM pg_roles WHERE rolname = current_user', owner)) <> 'false' THEN
                RAISE EXCEPTION 'the role that connects to gateway_fence has too many rights'
                    USING HINT = 'Map to a role of its own that has gateway_management and nothing else.';
            END IF;
            PERFORM gateway.aside('gateway_proof', format('SELECT gateway.fence(%L, %L::xid8, ''{}'', ''{}'')::text', gateway.place(), pg_current_xact_id()));
            PERFORM gateway.aside('gateway_proof', 'SELECT gateway.behind(0, 3)::text');
        EXCEPTION
            WHEN OTHERS OR query_canceled THEN
                PERFORM gateway.aside('gateway_proof', 'disconnect');
                RAISE;
        END;
        PERFORM gateway.aside('gateway_proof', 'disconnect');
    END IF;
    EXECUTE format('ALTER TABLE gateway.practices %1$s TRIGGER strict_update, %1$s TRIGGER strict_delete', how);
    EXECUTE format('ALTER TABLE gateway.users %1$s TRIGGER strict_update, %1$s TRIGGER strict_delete', how);
    EXECUTE format('ALTER TABLE gateway.clients %s TRIGGER strict_update', how);
    EXECUTE format('ALTER TABLE gateway.client_secrets %s TRIGGER strict_update', how);
    EXECUTE format('ALTER TABLE gateway.change_txns %s TRIGGER a_strict_commit', how);
END $$;

-- Begins the log anew on a server that it was not written by; who follows it reads everything.
CREATE FUNCTION gateway.own_log() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF gateway.foreign_log() THEN
        UPDATE gateway.change_floor SET seq = gateway.head();
        DELETE FROM gateway.change_txns;
        DELETE FROM gateway.fences;
    END IF;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA gateway FROM PUBLIC;
GRANT SELECT ON gateway.fences TO gateway_node, gateway_management;
GRANT EXECUTE ON FUNCTION gateway.lift() TO gateway_node;
GRANT EXECUTE ON FUNCTION gateway.fence(text, xid8, text[], text[]), gateway.behind(bigint, int), gateway.place() TO gateway_management;
