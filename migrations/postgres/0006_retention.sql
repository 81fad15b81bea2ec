-- What is old enough to be forgotten is found without looking through the rest.
CREATE INDEX email_outbox_over ON gateway.email_outbox (coalesce(sent_at, given_up_at)) WHERE coalesce(sent_at, given_up_at) IS NOT NULL;

-- Forgets some of the revoked tokens, used assertions and requests that nobody needs any more, of the mail that was sent or
-- given up a month ago, and of what clients did 400 days ago; whether there may be others yet. Not all at once: who calls
-- it has other things to do, and of more than 5000 rows the log would say only that there are many.
CREATE OR REPLACE FUNCTION gateway.prune_tokens() RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tokens bigint;
    assertions bigint;
    requests bigint;
    mails bigint;
    days bigint;
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
    WITH over AS (
        SELECT id FROM gateway.email_outbox WHERE coalesce(sent_at, given_up_at) < now() - interval '30 days' LIMIT 2000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway.email_outbox USING over WHERE email_outbox.id = over.id;
    GET DIAGNOSTICS mails = ROW_COUNT;
    WITH over AS (
        SELECT day, client_id, scope FROM gateway.usage_daily WHERE day < (now() AT TIME ZONE 'UTC')::date - 400 LIMIT 2000 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM gateway.usage_daily USING over
    WHERE usage_daily.day = over.day AND usage_daily.client_id = over.client_id AND usage_daily.scope = over.scope;
    GET DIAGNOSTICS days = ROW_COUNT;
    RETURN greatest(tokens, assertions, requests, mails, days) = 2000;
END $$;
