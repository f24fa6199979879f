-- Subscribers, trunks and routes are written by operators; the SBC reads them as one snapshot and is told of changes.
-- Bindings, calls and their events are written by the SBC.

CREATE TABLE subscriber (
    domain      text NOT NULL CHECK (domain = lower(domain) AND domain <> ''),
    username    text NOT NULL CHECK (username <> ''),
    -- H(username:domain:password), RFC 7616: lower-case hex. At least one; see sbc_set_password.
    ha1_md5     text CHECK (ha1_md5 ~ '^[0-9a-f]{32}$'),
    ha1_sha256  text CHECK (ha1_sha256 ~ '^[0-9a-f]{64}$'),
    enabled     boolean NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (domain, username),
    CHECK (ha1_md5 IS NOT NULL OR ha1_sha256 IS NOT NULL)
);

CREATE TABLE trunk (
    name        text PRIMARY KEY CHECK (name <> ''),
    realm       text NOT NULL,
    host        text NOT NULL CHECK (host <> ''),
    port        integer CHECK (port BETWEEN 1 AND 65535),
    transport   text CHECK (transport IN ('udp', 'tcp', 'tls')),
    username    text,
    password    text,
    timeout_ms  integer CHECK (timeout_ms > 0),
    enabled     boolean NOT NULL DEFAULT true
);

-- Addresses that a trunk's requests come from.
CREATE TABLE trunk_address (
    trunk       text NOT NULL REFERENCES trunk ON DELETE CASCADE,
    address     inet NOT NULL,
    PRIMARY KEY (trunk, address)
);

-- The longest matching prefix wins; within it the lowest priority comes first, and equal priorities share by weight.
CREATE TABLE route (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Only for calls from this realm; NULL for all.
    from_realm  text,
    prefix      text NOT NULL DEFAULT '',
    trunk       text NOT NULL REFERENCES trunk ON DELETE CASCADE,
    priority    integer NOT NULL DEFAULT 100,
    weight      integer NOT NULL DEFAULT 1 CHECK (weight > 0),
    -- Digits removed from the front of the dialled number, and what is put there instead.
    strip       integer NOT NULL DEFAULT 0 CHECK (strip >= 0),
    prepend     text NOT NULL DEFAULT ''
);

CREATE TABLE binding (
    node        smallint NOT NULL,
    aor         text NOT NULL,
    uri         text NOT NULL,
    realm       smallint NOT NULL,
    expires_at  timestamptz NOT NULL,
    user_agent  text NOT NULL DEFAULT '',
    source      text NOT NULL DEFAULT '',
    -- What the SBC needs to call it after a restart.
    record      jsonb NOT NULL,
    PRIMARY KEY (node, aor, uri)
);

CREATE TABLE call (
    id              uuid PRIMARY KEY,
    node            smallint NOT NULL,
    started_at      timestamptz NOT NULL,
    realm           text NOT NULL,
    source          text NOT NULL,
    transport       text NOT NULL,
    caller          text NOT NULL,
    from_uri        text NOT NULL,
    request_uri     text NOT NULL,
    call_id         text NOT NULL,
    user_agent      text NOT NULL,
    answered_at     timestamptz,
    answered_realm  text,
    trunk           text,
    destination     text,
    ended_at        timestamptz,
    cause           text,
    ended_by        text,
    status          smallint,
    -- Monotonic: a wall clock that is stepped does not bend them.
    setup_ms        bigint,
    duration_ms     bigint,
    media           jsonb
);
CREATE INDEX call_started_at ON call (started_at);
CREATE INDEX call_open ON call (node) WHERE ended_at IS NULL;

-- All that happened in a call, in order.
CREATE TABLE call_event (
    call        uuid NOT NULL,
    sequence    integer NOT NULL,
    at          timestamptz NOT NULL,
    kind        text NOT NULL,
    detail      jsonb NOT NULL,
    PRIMARY KEY (call, sequence)
);

CREATE FUNCTION sbc_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sbc_changed', TG_TABLE_NAME);
    RETURN NULL;
END $$;
CREATE TRIGGER subscriber_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON subscriber FOR EACH STATEMENT EXECUTE FUNCTION sbc_notify();
CREATE TRIGGER trunk_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON trunk FOR EACH STATEMENT EXECUTE FUNCTION sbc_notify();
CREATE TRIGGER trunk_address_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON trunk_address FOR EACH STATEMENT EXECUTE FUNCTION sbc_notify();
CREATE TRIGGER route_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON route FOR EACH STATEMENT EXECUTE FUNCTION sbc_notify();

-- Adds a subscriber or changes its password; nothing keeps the password itself.
CREATE FUNCTION sbc_set_password(new_domain text, new_username text, password text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO subscriber (domain, username, ha1_md5, ha1_sha256)
    VALUES (
        lower(new_domain), new_username,
        md5(new_username || ':' || lower(new_domain) || ':' || password),
        encode(sha256(convert_to(new_username || ':' || lower(new_domain) || ':' || password, 'UTF8')), 'hex')
    )
    ON CONFLICT (domain, username) DO UPDATE SET ha1_md5 = EXCLUDED.ha1_md5, ha1_sha256 = EXCLUDED.ha1_sha256;
$$;
