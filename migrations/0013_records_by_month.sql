-- Records by month. The id of a call begins with the millisecond in which it began, so that a month of them is a range of ids, and the id
-- alone stays their key. All that a call leaves lies in the month in which it began, however long it lasts; a month that is not to be
-- kept any longer is one DROP TABLE.

-- The least id of a call that began then or later: WHERE id >= sbc_call_id_from('2026-12-24') looks into no earlier month.
CREATE FUNCTION sbc_call_id_from(began timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM began) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

ALTER TABLE call RENAME TO call_before;
ALTER TABLE call_before RENAME CONSTRAINT call_pkey TO call_before_pkey;
ALTER TABLE call_before RENAME CONSTRAINT call_time_is_relayed_or_direct TO call_before_time;
ALTER INDEX call_started_at RENAME TO call_before_started_at;
ALTER INDEX call_open RENAME TO call_before_open;
ALTER TABLE call_event RENAME TO call_event_before;
ALTER TABLE call_event_before RENAME CONSTRAINT call_event_pkey TO call_event_before_pkey;
DROP VIEW call_path;

CREATE TABLE call (LIKE call_before INCLUDING DEFAULTS) PARTITION BY RANGE (id);
ALTER TABLE call
    ADD PRIMARY KEY (id),
    ADD CONSTRAINT call_time_is_relayed_or_direct CHECK (relayed_ms + direct_ms = duration_ms),
    -- What it was called before ids began with time (version 0.1.0).
    ADD COLUMN former_id uuid;
CREATE INDEX call_started_at ON call (started_at);
CREATE INDEX call_open ON call (node) WHERE ended_at IS NULL;
CREATE INDEX call_former_id ON call (former_id) WHERE former_id IS NOT NULL;
CREATE TABLE call_event (LIKE call_event_before INCLUDING DEFAULTS) PARTITION BY RANGE (call);
ALTER TABLE call_event ADD PRIMARY KEY (call, sequence);
-- Whom a call went to: the branches of its fork, the next ones of its route, and where redirections led; times since its INVITE.
-- Written with its end.
CREATE TABLE call_leg (
    call        uuid NOT NULL,
    -- As in call_event and media: the caller is 0, the first target 1.
    party       smallint NOT NULL,
    realm       text NOT NULL,
    trunk       text,
    destination text,
    -- An AOR, or the number and host that a trunk was sent; and the Request-URI.
    reached     text NOT NULL,
    reached_uri text NOT NULL,
    -- AOR or trunk of who sent the call there (3xx).
    sent_by     text,
    asked_ms    bigint,
    rang_ms     bigint,
    -- NULL: no final response had come when the call ended.
    status      smallint,
    PRIMARY KEY (call, party)
) PARTITION BY RANGE (call);
-- For ids of no month that there is a place for: a clock that is wrong by years, and what was in a journal before.
CREATE TABLE call_other PARTITION OF call DEFAULT;
CREATE TABLE call_event_other PARTITION OF call_event DEFAULT;
CREATE TABLE call_leg_other PARTITION OF call_leg DEFAULT;

-- The place of a month's records, by the month of UTC; how many tables were made.
CREATE FUNCTION sbc_make_month(month date) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    lower CONSTANT uuid := sbc_call_id_from(date_trunc('month', month::timestamp) AT TIME ZONE 'UTC');
    upper CONSTANT uuid := sbc_call_id_from((date_trunc('month', month::timestamp) + interval '1 month') AT TIME ZONE 'UTC');
    made integer := 0;
    parted text;
    key text;
    part text;
BEGIN
    FOREACH parted IN ARRAY ARRAY['call', 'call_event', 'call_leg'] LOOP
        part := parted || to_char(month, '_YYYY_MM');
        key := CASE parted WHEN 'call' THEN 'id' ELSE 'call' END;
        CONTINUE WHEN to_regclass(part) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parted);
        -- What came before there was a place for it.
        EXECUTE format(
            'WITH found AS (DELETE FROM %I WHERE %I >= %L AND %2$I < %4$L RETURNING *) INSERT INTO %5$I SELECT * FROM found',
            parted || '_other', key, lower, upper, part);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parted, part, lower, upper);
        made := made + 1;
    END LOOP;
    RETURN made;
END $$;

-- This month's and those to come: what the SBC calls, which may make no tables of its own.
CREATE FUNCTION sbc_make_months(ahead integer) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    first CONSTANT date := date_trunc('month', now() AT TIME ZONE 'UTC');
    made integer := 0;
BEGIN
    IF ahead NOT BETWEEN 0 AND 24 THEN
        RAISE EXCEPTION 'months are made for 0 to 24 months ahead, not for %', ahead USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- Nodes that share a database do it one after the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('sbc_make_months', 0));
    FOR months IN 0 .. ahead LOOP
        made := made + sbc_make_month((first + make_interval(months => months))::date);
    END LOOP;
    RETURN made;
END $$;
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION sbc_make_months(integer) SET search_path = %I, pg_temp', current_schema());
END $$;

-- Records of before: the time comes in front, and what told of node, slot and session goes where it belongs now.
SELECT sbc_make_month(month::date)
FROM generate_series(
    (SELECT date_trunc('month', min(started_at) AT TIME ZONE 'UTC') FROM call_before),
    (SELECT date_trunc('month', max(started_at) AT TIME ZONE 'UTC') FROM call_before),
    interval '1 month'
) AS month;
SELECT sbc_make_months(3);
CREATE TEMP TABLE renamed ON COMMIT DROP AS
    SELECT id AS former,
        (left(sbc_call_id_from(started_at)::text, 13) || '-8' || substr(hex, 3, 3) || '-'
            || to_hex(2048 + node * 4) || right(hex, 13))::uuid AS id
    FROM call_before, LATERAL (SELECT replace(id::text, '-', '') AS hex) AS digits;
ALTER TABLE renamed ADD PRIMARY KEY (former);
INSERT INTO call
    SELECT renamed.id, node, started_at, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent, answered_at,
        answered_realm, trunk, destination, ended_at, cause, ended_by, status, setup_ms, duration_ms, media, relayed_ms, direct_ms,
        relayed_octets, reached, reached_uri, former
    FROM call_before JOIN renamed ON former = call_before.id;
INSERT INTO call_event
    SELECT coalesce(renamed.id, call), sequence, at, kind, detail FROM call_event_before LEFT JOIN renamed ON former = call;
UPDATE call_policy SET call = renamed.id FROM renamed WHERE former = call;
DROP TABLE call_before, call_event_before;

-- Where the media of each call went, when, why, and what showed it.
CREATE VIEW call_path AS
    SELECT call, sequence, at,
        (detail ->> 'after_ms')::bigint AS after_ms,
        detail ->> 'what' AS what,
        detail ->> 'why' AS why,
        (detail ->> 'party')::integer AS party,
        detail ->> 'evidence' AS evidence
    FROM call_event
    WHERE kind = 'path'
    ORDER BY call, sequence;

REVOKE EXECUTE ON FUNCTION sbc_call_id_from(timestamptz), sbc_make_month(date), sbc_make_months(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION sbc_call_id_from(timestamptz) TO sbc_runtime, sbc_operator, sbc_reader;
GRANT EXECUTE ON FUNCTION sbc_make_months(integer) TO sbc_runtime;
GRANT SELECT, INSERT, UPDATE ON call TO sbc_runtime;
GRANT SELECT, INSERT ON call_event, call_leg TO sbc_runtime;
GRANT SELECT ON call, call_event, call_leg, call_path TO sbc_operator, sbc_reader;
