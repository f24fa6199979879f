-- Policy is edited in drafts: what a draft changes lies beside what is in force, is checked as a whole with every mistake named, and comes
-- into force as one version in one transaction, or not at all. What was before is kept, so that a version can be taken back.

CREATE TABLE policy_version (
    version     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    by          text NOT NULL DEFAULT sbc_actor(),
    -- Who had changed something in the draft.
    authors     text[] NOT NULL DEFAULT '{}',
    draft       text NOT NULL,
    comment     text NOT NULL DEFAULT ''
);

-- Transactions that changed what drafts may change, without one: what there was before them is not known.
CREATE TABLE policy_direct (
    transaction xid8 PRIMARY KEY DEFAULT pg_current_xact_id(),
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    by          text NOT NULL DEFAULT sbc_actor()
);
CREATE INDEX policy_direct_at ON policy_direct (at);

-- What each version changed; NULL where there was or is nothing.
CREATE TABLE policy_history (
    version     bigint NOT NULL REFERENCES policy_version,
    kind        text NOT NULL,
    key         jsonb NOT NULL,
    was         jsonb,
    is_now      jsonb,
    PRIMARY KEY (version, kind, key)
);
CREATE INDEX policy_history_key ON policy_history (kind, key);

CREATE TABLE draft (
    name        text PRIMARY KEY CHECK (name <> ''),
    comment     text NOT NULL DEFAULT '',
    -- The version that it was opened on: what others have changed since is told.
    base        bigint NOT NULL,
    opened_at   timestamptz NOT NULL DEFAULT now(),
    opened_by   text NOT NULL DEFAULT sbc_actor()
);

CREATE TABLE draft_change (
    draft       text NOT NULL REFERENCES draft ON DELETE CASCADE,
    kind        text NOT NULL,
    -- The columns that name a row.
    key         jsonb NOT NULL,
    -- The row as it shall be; NULL: it shall not be.
    wanted      jsonb,
    changed_at  timestamptz NOT NULL DEFAULT now(),
    changed_by  text NOT NULL DEFAULT sbc_actor(),
    PRIMARY KEY (draft, kind, key)
);

-- One row: whether a second person must bring drafts into force.
CREATE TABLE policy_setting (
    is_only_row     boolean PRIMARY KEY DEFAULT true CHECK (is_only_row),
    second_person   boolean NOT NULL DEFAULT false
);
INSERT INTO policy_setting DEFAULT VALUES;

-- The version in force; 0 before the first.
CREATE FUNCTION sbc_policy_version() RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT coalesce(max(version), 0) FROM policy_version
$$;

-- Where a second person is asked for, nobody passes drafts by; where not, it is noted who has.
CREATE FUNCTION sbc_note_direct() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- A draft is brought into force with its owner's rights.
    IF current_user = (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = TG_RELID) AND session_user <> current_user THEN
        RETURN NULL;
    END IF;
    IF (SELECT second_person FROM policy_setting) THEN
        RAISE EXCEPTION 'table % is changed by drafts alone here', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege', HINT = 'SELECT sbc_draft_open(name), sbc_draft_put(name, kind, row); a second person brings it into force.';
    END IF;
    PERFORM sbc_note_direct_change();
    RETURN NULL;
END $$;
CREATE FUNCTION sbc_note_direct_change() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
    INSERT INTO policy_direct DEFAULT VALUES ON CONFLICT DO NOTHING
$$;
CREATE TRIGGER route_direct AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON route FOR EACH STATEMENT EXECUTE FUNCTION sbc_note_direct();

-- What a draft may change: the columns of each kind, and which of them are its key.
CREATE FUNCTION sbc_policy_columns(of_kind text, only_key boolean) RETURNS text[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    CASE of_kind
        WHEN 'route' THEN
            RETURN ARRAY['from_realm', 'prefix', 'trunk'] || CASE WHEN only_key THEN '{}'::text[] ELSE ARRAY['priority', 'weight', 'strip', 'prepend'] END;
        ELSE
            RAISE EXCEPTION 'drafts have no "%"', of_kind USING ERRCODE = 'invalid_parameter_value', HINT = 'They have: route.';
    END CASE;
END $$;

-- The key of a row, with all of its columns.
CREATE FUNCTION sbc_policy_key(of_kind text, of_row jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_object_agg(name, CASE name WHEN 'prefix' THEN coalesce(of_row -> name, '""') ELSE coalesce(of_row -> name, 'null') END)
    FROM unnest(sbc_policy_columns(of_kind, true)) AS name
$$;

-- The row in force of this key; NULL: there is none.
CREATE FUNCTION sbc_policy_row(of_kind text, of_key jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT to_jsonb(route) - 'id' FROM route
    WHERE of_kind = 'route' AND prefix = of_key ->> 'prefix' AND trunk = of_key ->> 'trunk' AND from_realm IS NOT DISTINCT FROM of_key ->> 'from_realm'
    ORDER BY id LIMIT 1
$$;

-- Brings rows into force: those of a draft, or one of them. The errors are those of the tables.
CREATE FUNCTION sbc_policy_apply(of_draft text, only_key jsonb DEFAULT NULL) RETURNS void LANGUAGE sql AS $$
    DELETE FROM route USING draft_change AS change
    WHERE draft = of_draft AND kind = 'route' AND (only_key IS NULL OR key = only_key)
        AND prefix = key ->> 'prefix' AND trunk = key ->> 'trunk' AND from_realm IS NOT DISTINCT FROM key ->> 'from_realm';
    INSERT INTO route (from_realm, prefix, trunk, priority, weight, strip, prepend)
    SELECT key ->> 'from_realm', key ->> 'prefix', key ->> 'trunk', coalesce((wanted ->> 'priority')::integer, 100),
        coalesce((wanted ->> 'weight')::integer, 1), coalesce((wanted ->> 'strip')::integer, 0), coalesce(wanted ->> 'prepend', '')
    FROM draft_change
    WHERE draft = of_draft AND kind = 'route' AND (only_key IS NULL OR key = only_key) AND wanted IS NOT NULL;
$$;

CREATE FUNCTION sbc_draft_open(new_name text, new_comment text DEFAULT '') RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO draft (name, comment, base) VALUES (new_name, new_comment, sbc_policy_version());
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION 'there is a draft "%" already', new_name USING ERRCODE = 'unique_violation';
END $$;

CREATE FUNCTION sbc_draft_discard(of_draft text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    DELETE FROM draft WHERE name = of_draft;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no draft "%"', of_draft USING ERRCODE = 'no_data_found';
    END IF;
END $$;

-- A row as it shall be. What it does not say is as the table has it by default.
CREATE FUNCTION sbc_draft_put(of_draft text, of_kind text, new_row jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    unknown text;
BEGIN
    IF NOT EXISTS (SELECT FROM draft WHERE name = of_draft) THEN
        RAISE EXCEPTION 'there is no draft "%"', of_draft USING ERRCODE = 'no_data_found', HINT = 'Open it first: SELECT sbc_draft_open(name).';
    END IF;
    IF jsonb_typeof(new_row) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'a row is an object of its columns, not %', coalesce(left(new_row::text, 40), 'NULL') USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT string_agg(quote_ident(name), ', ') INTO unknown
    FROM jsonb_object_keys(new_row) AS name WHERE name <> ALL (sbc_policy_columns(of_kind, false));
    IF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'a % has no column %', of_kind, unknown
            USING ERRCODE = 'undefined_column', HINT = 'It has: ' || array_to_string(sbc_policy_columns(of_kind, false), ', ') || '.';
    END IF;
    INSERT INTO draft_change (draft, kind, key, wanted) VALUES (of_draft, of_kind, sbc_policy_key(of_kind, new_row), new_row)
    ON CONFLICT (draft, kind, key) DO UPDATE SET wanted = EXCLUDED.wanted, changed_at = now(), changed_by = sbc_actor();
END $$;

-- A row that shall not be any more.
CREATE FUNCTION sbc_draft_drop(of_draft text, of_kind text, of_row jsonb) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    PERFORM sbc_draft_put(of_draft, of_kind, of_row);
    UPDATE draft_change SET wanted = NULL WHERE draft = of_draft AND kind = of_kind AND key = sbc_policy_key(of_kind, of_row);
END $$;

-- What a draft would change.
CREATE VIEW draft_difference AS
    SELECT draft, kind, key, sbc_policy_row(kind, key) AS was, wanted, changed_by, changed_at FROM draft_change ORDER BY draft, kind, key;

-- All that is wrong with a draft, row by row. It is tried out, and nothing of that stays.
CREATE FUNCTION sbc_draft_check(of_draft text) RETURNS TABLE (kind text, key jsonb, reason text) LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    change draft_change;
    found jsonb := '[]';
    detail text;
    said text;
    is_right boolean := false;
BEGIN
    IF NOT EXISTS (SELECT FROM draft WHERE name = of_draft) THEN
        RAISE EXCEPTION 'there is no draft "%"', of_draft USING ERRCODE = 'no_data_found';
    END IF;
    BEGIN
        BEGIN
            PERFORM sbc_policy_apply(of_draft);
            is_right := true;
        EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN NULL;
        END;
        IF NOT is_right THEN
            -- Which rows it is, one by one.
            FOR change IN SELECT * FROM draft_change WHERE draft = of_draft ORDER BY wanted IS NOT NULL, draft_change.kind, draft_change.key LOOP
                BEGIN
                    PERFORM sbc_policy_apply(of_draft, change.key);
                EXCEPTION WHEN integrity_constraint_violation OR data_exception THEN
                    GET STACKED DIAGNOSTICS said = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
                    found := found || jsonb_build_object('kind', change.kind, 'key', change.key, 'reason', concat_ws(': ', said, nullif(detail, '')));
                END;
            END LOOP;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'SB000';
    EXCEPTION WHEN SQLSTATE 'SB000' THEN NULL;
    END;
    RETURN QUERY SELECT x.kind, x.key, x.reason FROM jsonb_to_recordset(found) AS x (kind text, key jsonb, reason text);
    RETURN QUERY
        SELECT later.kind, later.key, format('%s has changed it in version %s, after this draft was opened', policy_version.by, later.version)
        FROM draft_change AS mine JOIN draft ON name = mine.draft
            JOIN policy_history AS later ON (later.kind, later.key) = (mine.kind, mine.key) AND later.version > base
            JOIN policy_version ON policy_version.version = later.version
        WHERE mine.draft = of_draft;
END $$;

-- Brings a draft into force: all of it, as one version, or nothing. The version.
CREATE FUNCTION sbc_draft_activate(of_draft text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    wrong record;
    names text[];
    made bigint;
BEGIN
    -- Versions come one after the other, and what is checked is what comes into force.
    PERFORM pg_advisory_xact_lock(hashtextextended('sbc_policy', 0));
    SELECT coalesce(array_agg(DISTINCT changed_by), '{}') INTO names FROM draft_change WHERE draft = of_draft;
    IF (SELECT second_person FROM policy_setting) AND sbc_actor() = ANY (names) THEN
        RAISE EXCEPTION '% has changed this draft: somebody else must bring it into force', sbc_actor()
            USING ERRCODE = 'insufficient_privilege', HINT = 'That is what policy_setting.second_person says.';
    END IF;
    SELECT *, count(*) OVER () AS count INTO wrong FROM sbc_draft_check(of_draft) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the draft "%" has % mistakes and stays a draft; the first: % %: %', of_draft, wrong.count, wrong.kind, wrong.key, wrong.reason
            USING ERRCODE = 'integrity_constraint_violation', HINT = format('All of them: SELECT * FROM sbc_draft_check(%L).', of_draft);
    END IF;
    IF names = '{}' THEN
        RAISE EXCEPTION 'the draft "%" changes nothing', of_draft USING ERRCODE = 'no_data_found';
    END IF;
    INSERT INTO policy_version (draft, comment, authors) SELECT name, comment, names FROM draft WHERE name = of_draft RETURNING version INTO made;
    INSERT INTO policy_history (version, kind, key, was)
    SELECT made, kind, key, sbc_policy_row(kind, key) FROM draft_change WHERE draft = of_draft;
    PERFORM sbc_policy_apply(of_draft);
    UPDATE policy_history SET is_now = sbc_policy_row(kind, key) WHERE version = made;
    DELETE FROM draft WHERE name = of_draft;
    RETURN made;
END $$;

-- A draft that takes back all that came after a version; what stands in its way is told by its check.
CREATE FUNCTION sbc_draft_rollback(to_version bigint, new_name text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    direct timestamptz;
BEGIN
    IF to_version <> 0 AND NOT EXISTS (SELECT FROM policy_version WHERE version = to_version) THEN
        RAISE EXCEPTION 'there is no version %', to_version USING ERRCODE = 'no_data_found';
    END IF;
    SELECT min(policy_direct.at) INTO direct FROM policy_direct
    WHERE policy_direct.at > coalesce((SELECT policy_version.at FROM policy_version WHERE version = to_version), '-infinity');
    IF direct IS NOT NULL THEN
        RAISE EXCEPTION 'tables were changed directly at %, after version %, and what there was before is not known', direct, to_version
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Go back to a later version, or put what is to change into a draft by hand.';
    END IF;
    PERFORM sbc_draft_open(new_name, format('back to version %s', to_version));
    INSERT INTO draft_change (draft, kind, key, wanted)
    SELECT DISTINCT ON (kind, key) new_name, kind, key, was FROM policy_history WHERE version > to_version ORDER BY kind, key, version;
END $$;

DO $$
DECLARE
    of_owner text;
BEGIN
    FOREACH of_owner IN ARRAY ARRAY['sbc_note_direct_change()', 'sbc_draft_open(text, text)', 'sbc_draft_discard(text)', 'sbc_draft_put(text, text, jsonb)',
        'sbc_draft_drop(text, text, jsonb)', 'sbc_draft_check(text)', 'sbc_draft_activate(text)', 'sbc_draft_rollback(bigint, text)'] LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', of_owner, current_schema());
    END LOOP;
END $$;
REVOKE EXECUTE ON FUNCTION sbc_policy_version(), sbc_note_direct(), sbc_note_direct_change(), sbc_policy_columns(text, boolean), sbc_policy_key(text, jsonb),
    sbc_policy_row(text, jsonb), sbc_policy_apply(text, jsonb), sbc_draft_open(text, text), sbc_draft_discard(text), sbc_draft_put(text, text, jsonb),
    sbc_draft_drop(text, text, jsonb), sbc_draft_check(text), sbc_draft_activate(text), sbc_draft_rollback(bigint, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sbc_policy_version() TO sbc_runtime, sbc_operator, sbc_reader;
GRANT EXECUTE ON FUNCTION sbc_policy_row(text, jsonb) TO sbc_operator, sbc_reader;
GRANT EXECUTE ON FUNCTION sbc_note_direct_change(), sbc_policy_columns(text, boolean), sbc_draft_open(text, text), sbc_draft_discard(text), sbc_draft_put(text, text, jsonb),
    sbc_draft_drop(text, text, jsonb), sbc_draft_check(text), sbc_draft_activate(text), sbc_draft_rollback(bigint, text) TO sbc_operator;
GRANT SELECT ON policy_version TO sbc_runtime;
GRANT SELECT ON policy_version, policy_history, policy_direct, policy_setting, draft, draft_change, draft_difference TO sbc_operator, sbc_reader;
