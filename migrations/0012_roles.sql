-- Who may do what. The schema belongs to its owner, who alone changes it and whom no running program connects as. Everybody else is
-- a member of one of three roles: sbc_runtime (the SBC itself), sbc_operator (writes subscribers, trunks and routes), sbc_reader (sees
-- records, and no secret). Roles are the whole server's, so another database of it may have made them.
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['sbc_runtime', 'sbc_operator', 'sbc_reader'] LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = wanted);
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        EXCEPTION
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is missing and % may not create it; as an administrator of the server say: CREATE ROLE sbc_runtime; CREATE ROLE sbc_operator; CREATE ROLE sbc_reader', wanted, current_user
                    USING ERRCODE = 'insufficient_privilege';
        END;
    END LOOP;
END $$;

-- Who changed something is a person: whoever connects for others says for whom (SET sbc.actor = 'j.doe').
CREATE FUNCTION sbc_actor() RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce(nullif(current_setting('sbc.actor', true), ''), session_user::text)
$$;
ALTER TABLE call_policy ALTER COLUMN changed_by SET DEFAULT sbc_actor();
CREATE OR REPLACE FUNCTION sbc_call_release(of_call uuid, policy text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF policy IS NULL OR policy = 'realm' THEN
        DELETE FROM call_policy WHERE call = of_call;
    ELSIF policy IN ('anchor', 'video', 'allow', 'prefer') THEN
        INSERT INTO call_policy (call, release) VALUES (of_call, policy)
        ON CONFLICT (call) DO UPDATE SET release = EXCLUDED.release, changed_at = now(), changed_by = sbc_actor();
    ELSE
        RAISE EXCEPTION 'no policy of calls is called "%"', policy
            USING ERRCODE = 'check_violation',
                HINT = 'Say anchor, video, allow or prefer, or realm to leave the call to its realms.';
    END IF;
END $$;

-- Nobody reads password hashes but the SBC, so that they are set by a function with its owner's rights. What such functions name is
-- looked for in this schema alone, never in a caller's temporary tables.
ALTER FUNCTION sbc_set_password(text, text, text) SECURITY DEFINER;
DO $$
DECLARE
    of_owner text;
BEGIN
    FOREACH of_owner IN ARRAY ARRAY['sbc_set_password(text, text, text)', 'sbc_log_change()'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', of_owner, current_schema());
    END LOOP;
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC', current_schema());
    IF NOT has_schema_privilege('sbc_reader', current_schema(), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO sbc_runtime, sbc_operator, sbc_reader', current_schema());
    END IF;
END $$;
REVOKE EXECUTE ON FUNCTION sbc_actor(), sbc_set_password(text, text, text), sbc_call_release(uuid, text), sbc_log_change(),
    sbc_notify_call_policy() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sbc_actor() TO sbc_runtime, sbc_operator;
GRANT EXECUTE ON FUNCTION sbc_set_password(text, text, text), sbc_call_release(uuid, text) TO sbc_operator;

-- The SBC: reads policy, writes what happens.
GRANT SELECT ON subscriber, trunk, trunk_address, route, _sqlx_migrations TO sbc_runtime;
GRANT SELECT, DELETE ON policy_change, call_policy TO sbc_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON binding, release_outcome TO sbc_runtime;
GRANT SELECT, INSERT, UPDATE ON call TO sbc_runtime;
GRANT SELECT, INSERT ON call_event TO sbc_runtime;

-- Operators: write policy, see the rest.
GRANT SELECT (domain, username, enabled, created_at), INSERT, UPDATE, DELETE, TRUNCATE ON subscriber TO sbc_operator;
GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON trunk, trunk_address, route, call_policy TO sbc_operator;
GRANT SELECT, DELETE ON release_outcome TO sbc_operator;
GRANT SELECT ON policy_change, binding, call, call_event, call_path, release_score TO sbc_operator;

-- Readers: no hash, no password, nothing that calls a phone.
GRANT SELECT (domain, username, enabled, created_at) ON subscriber TO sbc_reader;
GRANT SELECT (name, realm, host, port, transport, username, timeout_ms, enabled, certificate_name, ping_seconds) ON trunk TO sbc_reader;
GRANT SELECT (node, aor, uri, realm, listener, expires_at, user_agent, source) ON binding TO sbc_reader;
GRANT SELECT ON trunk_address, route, policy_change, call_policy, release_outcome, call, call_event, call_path, release_score TO sbc_reader;
