-- The change log that every gateway follows, and the register of the gateways that barriers wait for.
--
-- Every transaction that changes what access depends on, whoever makes it, gets one number, at its COMMIT and under a
-- lock that is held until the commit is visible: so who sees a number sees every smaller one that there will ever be.
-- (A number taken by INSERT would not do: a transaction that commits later may have a smaller one.)

CREATE SEQUENCE gateway.change_seq;

-- Whoever commits a change holds this table until it is visible. (Not an advisory lock, which every role could hold.)
CREATE TABLE gateway.change_order ();

CREATE TABLE gateway.change_txns (
    xid xid8 NOT NULL PRIMARY KEY,
    -- NULL only inside the transaction itself
    seq bigint UNIQUE,
    at  timestamptz
);

-- Which rows a transaction changed; the key `*`: too many to name, so read everything.
CREATE TABLE gateway.change_rows (
    xid  xid8 NOT NULL REFERENCES gateway.change_txns ON DELETE CASCADE,
    kind text NOT NULL CHECK (kind IN ('practice', 'user', 'client', 'key', 'token')),
    key  text NOT NULL,
    PRIMARY KEY (xid, kind, key)
);

-- What a transaction takes access from, in strict mode: fenced, which empties it, before the transaction has its number.
-- So nobody else ever sees a row.
CREATE TABLE gateway.narrowings (
    xid  xid8 NOT NULL,
    kind text NOT NULL,
    key  text NOT NULL,
    PRIMARY KEY (xid, kind, key)
);

-- The log reaches back to just after this number.
CREATE TABLE gateway.change_floor (
    only_one boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_one),
    seq      bigint NOT NULL
);
INSERT INTO gateway.change_floor (seq) VALUES (0);

-- One row for each gateway that may be answering. The row is its membership.
CREATE TABLE gateway.nodes (
    node_id    text NOT NULL PRIMARY KEY,
    -- one more with each heartbeat
    beat       bigint NOT NULL DEFAULT 0,
    -- the newest change in force on the node, on that history of the database
    applied    bigint NOT NULL DEFAULT 0,
    history    text NOT NULL,
    -- how long after its last heartbeat the node may answer, on any clock that is right within a thousandth
    bound_ms   bigint NOT NULL CHECK (bound_ms BETWEEN 1 AND 86400000),
    name       text NOT NULL DEFAULT '',
    version    text NOT NULL DEFAULT '',
    -- the newest schema that the node's program knows: what came later it reads past
    schema     int NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 40);

-- The newest change that this snapshot shows.
CREATE FUNCTION gateway.head() RETURNS bigint LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT greatest((SELECT seq FROM gateway.change_floor), (SELECT max(seq) FROM gateway.change_txns))
$$;

-- Which history of which database this is: it changes with a failover and with a restored backup, and a number of one
-- history means nothing in another. An error on a standby, which can prove nothing.
CREATE FUNCTION gateway.history() RETURNS text LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '-' || system_identifier FROM pg_control_system()
$$;

-- Whether the log is that of another server, as after a restored dump: some day a transaction here would have the number
-- of one that is in it, and its changes would be taken for logged. (What this server has committed is below `xmax`.)
CREATE FUNCTION gateway.foreign_log() RETURNS boolean LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM gateway.change_txns WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))
$$;

CREATE FUNCTION gateway.note(of_kind text, keys text[]) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(cardinality(keys), 0) = 0 THEN
        RETURN;
    END IF;
    INSERT INTO gateway.change_txns (xid) VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING;
    IF cardinality(keys) > 5000 THEN
        keys := ARRAY['*'];
    END IF;
    INSERT INTO gateway.change_rows (xid, kind, key) SELECT DISTINCT pg_current_xact_id(), of_kind, k FROM unnest(keys) AS k
        ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION gateway.log_practices() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.note('practice', (SELECT array_agg(practice_id) FROM touched));
    RETURN NULL;
END $$;
CREATE FUNCTION gateway.log_users() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.note('user', (SELECT array_agg(user_id) FROM touched));
    RETURN NULL;
END $$;
-- A change of a secret is a change of its client.
CREATE FUNCTION gateway.log_clients() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM gateway.note('client', (SELECT array_agg(DISTINCT client_id) FROM touched));
    RETURN NULL;
END $$;

-- Ids never change, so the old rows of an UPDATE name the same as the new ones.
CREATE TRIGGER log_insert AFTER INSERT ON gateway.practices REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_practices();
CREATE TRIGGER log_update AFTER UPDATE ON gateway.practices REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_practices();
CREATE TRIGGER log_delete AFTER DELETE ON gateway.practices REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_practices();
CREATE TRIGGER log_insert AFTER INSERT ON gateway.users REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_users();
CREATE TRIGGER log_update AFTER UPDATE ON gateway.users REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_users();
CREATE TRIGGER log_delete AFTER DELETE ON gateway.users REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_users();
CREATE TRIGGER log_insert AFTER INSERT ON gateway.clients REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_clients();
CREATE TRIGGER log_update AFTER UPDATE ON gateway.clients REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_clients();
CREATE TRIGGER log_insert AFTER INSERT ON gateway.client_secrets REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_clients();
CREATE TRIGGER log_update AFTER UPDATE ON gateway.client_secrets REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION gateway.log_clients();

-- What logical replication writes fires no trigger of a statement, but those of rows; elsewhere these are silent.
CREATE FUNCTION gateway.log_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    changed jsonb := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
BEGIN
    PERFORM gateway.note(TG_ARGV[0], ARRAY[changed ->> (TG_ARGV[0] || '_id')]);
    RETURN NULL;
END $$;
CREATE TRIGGER log_row AFTER INSERT OR UPDATE OR DELETE ON gateway.practices FOR EACH ROW EXECUTE FUNCTION gateway.log_row('practice');
CREATE TRIGGER log_row AFTER INSERT OR UPDATE OR DELETE ON gateway.users FOR EACH ROW EXECUTE FUNCTION gateway.log_row('user');
CREATE TRIGGER log_row AFTER INSERT OR UPDATE ON gateway.clients FOR EACH ROW EXECUTE FUNCTION gateway.log_row('client');
CREATE TRIGGER log_row AFTER INSERT OR UPDATE ON gateway.client_secrets FOR EACH ROW EXECUTE FUNCTION gateway.log_row('client');

-- Deferred to the COMMIT: a transaction that has changed something and then sits open keeps nobody else waiting.
CREATE FUNCTION gateway.stamp() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A number that a crash forgets is given again, and who has seen it takes the second change for the first.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF EXISTS (SELECT FROM gateway.narrowings WHERE xid = NEW.xid) THEN
        RAISE EXCEPTION 'in strict mode access is not taken away after SET CONSTRAINTS … IMMEDIATE'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Leave the constraints of gateway.change_txns deferred to the COMMIT.';
    END IF;
    LOCK TABLE gateway.change_order IN EXCLUSIVE MODE;
    UPDATE gateway.change_txns SET seq = nextval('gateway.change_seq'), at = clock_timestamp() WHERE xid = NEW.xid;
    PERFORM pg_notify('gateway_change', '');
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER stamp AFTER INSERT ON gateway.change_txns
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION gateway.stamp();

ALTER TABLE gateway.practices ENABLE ALWAYS TRIGGER log_insert, ENABLE ALWAYS TRIGGER log_update, ENABLE ALWAYS TRIGGER log_delete, ENABLE REPLICA TRIGGER log_row;
ALTER TABLE gateway.users ENABLE ALWAYS TRIGGER log_insert, ENABLE ALWAYS TRIGGER log_update, ENABLE ALWAYS TRIGGER log_delete, ENABLE REPLICA TRIGGER log_row;
ALTER TABLE gateway.clients ENABLE ALWAYS TRIGGER log_insert, ENABLE ALWAYS TRIGGER log_update, ENABLE REPLICA TRIGGER log_row;
ALTER TABLE gateway.client_secrets ENABLE ALWAYS TRIGGER log_insert, ENABLE ALWAYS TRIGGER log_update, ENABLE REPLICA TRIGGER log_row;
ALTER TABLE gateway.change_txns ENABLE ALWAYS TRIGGER stamp;

-- How many gateways may be answering that have not applied a change, or do not know what is in it.
CREATE FUNCTION gateway.behind(revision bigint, needed int DEFAULT 0) RETURNS bigint LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FROM gateway.nodes WHERE applied < revision OR history <> gateway.history() OR schema < needed
$$;

-- Waits until every gateway has applied what has been committed, or can no longer answer: what was changed by plain SQL
-- is then as much in force as after a call of the API. After COMMIT, in a statement of its own:
--     SELECT gateway.await();
-- Returns the number waited for. A gateway that has died is waited for until the others take it out of the register.
CREATE FUNCTION gateway.await(revision bigint DEFAULT NULL, patience interval DEFAULT '1 minute') RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted bigint;
    behind bigint;
    until timestamptz := clock_timestamp() + patience;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'gateway.await() sees nothing new in a % transaction: call it after COMMIT, by itself', current_setting('transaction_isolation');
    END IF;
    IF EXISTS (SELECT FROM gateway.change_txns WHERE xid = pg_current_xact_id_if_assigned()) THEN
        RAISE EXCEPTION 'the change is not committed yet, so no gateway can see it: COMMIT, then SELECT gateway.await()';
    END IF;
    wanted := coalesce(revision, gateway.head());
    LOOP
        behind := gateway.behind(wanted);
        EXIT WHEN behind = 0;
        IF clock_timestamp() > until THEN
            RAISE EXCEPTION '% gateway(s) have not applied revision % after %', behind, wanted, patience
                USING HINT = 'Is a gateway running? Only a running one takes a dead one out of gateway.nodes.';
        END IF;
        PERFORM pg_sleep(0.002);
    END LOOP;
    RETURN wanted;
END $$;

-- Forgets the oldest changes: those over an hour old, but the newest 100000 are kept in any case.
CREATE FUNCTION gateway.prune() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    floor bigint;
BEGIN
    SELECT max(seq) INTO floor FROM gateway.change_txns WHERE at < now() - interval '1 hour' AND seq <= gateway.head() - 100000;
    IF floor IS NOT NULL THEN
        UPDATE gateway.change_floor SET seq = greatest(seq, floor);
        DELETE FROM gateway.change_txns WHERE seq <= floor;
    END IF;
END $$;

-- A write that changes nothing: its COMMIT is acknowledged only by a server that can still commit.
CREATE FUNCTION gateway.confirm() RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    UPDATE gateway.change_floor SET seq = seq
$$;

-- What the triggers and functions are, in short: it is compared with what it was right after the migration.
CREATE FUNCTION gateway.fingerprint() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT md5(string_agg(line, E'\n' ORDER BY line COLLATE "C")) FROM (
        -- Those of the strict mode may be on or off.
        SELECT c.relname || ' ' || CASE WHEN t.tgname ~ 'strict_' THEN '' ELSE t.tgenabled::text END || ' ' || pg_get_triggerdef(t.oid) AS line
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE NOT t.tgisinternal AND c.relnamespace = 'gateway'::regnamespace
        UNION ALL
        SELECT proname || ' ' || prosecdef::text || ' ' || coalesce(array_to_string(proconfig, ','), '') || ' ' || prosrc
        FROM pg_proc WHERE pronamespace = 'gateway'::regnamespace) AS lines
$$;

-- Two groups, to be granted to the roles that log in: what serves needs to read, and to write its standing; what
-- manages needs to write the rows. Neither can touch a trigger, the log or the past.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['gateway_node', 'gateway_management'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
            END IF;
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN
                NULL; -- a migration of another database was quicker
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'this role may not create the role %: migrate as one that may, or have it created first', wanted;
        END;
    END LOOP;
END $$;
REVOKE ALL ON SCHEMA gateway FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA gateway FROM PUBLIC;
GRANT USAGE ON SCHEMA gateway TO gateway_node, gateway_management;
GRANT SELECT ON ALL TABLES IN SCHEMA gateway TO gateway_management;
GRANT SELECT ON gateway.practices, gateway.users, gateway.clients, gateway.client_secrets, gateway.change_txns, gateway.change_rows,
    gateway.change_floor, gateway.schema_version TO gateway_node;
GRANT SELECT, INSERT, UPDATE, DELETE ON gateway.nodes TO gateway_node;
GRANT EXECUTE ON FUNCTION gateway.head(), gateway.history(), gateway.fingerprint(), gateway.foreign_log(), gateway.prune() TO gateway_node;
GRANT EXECUTE ON FUNCTION gateway.head(), gateway.history(), gateway.fingerprint(), gateway.foreign_log(), gateway.confirm(), gateway.await(bigint, interval) TO gateway_management;
GRANT INSERT, UPDATE ON gateway.practices, gateway.users, gateway.clients, gateway.client_secrets TO gateway_management;
GRANT INSERT ON gateway.audit_events TO gateway_management;
GRANT USAGE ON SEQUENCE gateway.audit_event_id TO gateway_management;
