-- What has changed in subscribers, trunks and routes, by key, so that a node reads what changed and not everything. Rows are found by
-- the transaction that wrote them and not by a number: commits overtake numbers, while "committed since I looked last" is exact
-- (pg_visible_in_snapshot). NOTIFY is a hint only: a node looks every second in any case.
CREATE TABLE policy_change (
    transaction xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at          timestamptz NOT NULL DEFAULT now(),
    -- subscriber, trunk or route.
    kind        text NOT NULL,
    -- A subscriber's domain, a trunk's name, a route's prefix; NULL means that all of the kind are to be read.
    key         text,
    -- A subscriber's user name.
    username    text
);
CREATE INDEX policy_change_transaction ON policy_change (transaction);
CREATE INDEX policy_change_at ON policy_change (at);
-- All routes of a prefix are read together.
CREATE INDEX route_prefix ON route (prefix);

-- More keys than this in one statement are read no faster one by one.
CREATE FUNCTION sbc_log_change() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    bulk CONSTANT bigint := 100000;
    changed bigint := bulk + 1;
BEGIN
    IF TG_OP IN ('INSERT', 'UPDATE') THEN SELECT count(*) INTO changed FROM is_now;
    ELSIF TG_OP = 'DELETE' THEN SELECT count(*) INTO changed FROM was;
    END IF;
    IF changed = 0 THEN RETURN NULL; END IF;
    IF changed > bulk OR TG_TABLE_NAME IN ('trunk', 'trunk_address') THEN
        INSERT INTO policy_change (kind) VALUES (CASE TG_TABLE_NAME WHEN 'trunk_address' THEN 'trunk' ELSE TG_TABLE_NAME END);
    ELSIF TG_TABLE_NAME = 'subscriber' THEN
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO policy_change (kind, key, username) SELECT DISTINCT 'subscriber', domain, username FROM was;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO policy_change (kind, key, username) SELECT DISTINCT 'subscriber', domain, username FROM is_now;
        END IF;
    ELSE
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO policy_change (kind, key) SELECT DISTINCT 'route', prefix FROM was;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO policy_change (kind, key) SELECT DISTINCT 'route', prefix FROM is_now;
        END IF;
    END IF;
    PERFORM pg_notify('sbc_changed', TG_TABLE_NAME);
    RETURN NULL;
END $$;

DROP TRIGGER subscriber_changed ON subscriber;
DROP TRIGGER trunk_changed ON trunk;
DROP TRIGGER trunk_address_changed ON trunk_address;
DROP TRIGGER route_changed ON route;
DROP FUNCTION sbc_notify();

DO $$
DECLARE
    changing text;
BEGIN
    FOREACH changing IN ARRAY ARRAY['subscriber', 'trunk', 'trunk_address', 'route'] LOOP
        EXECUTE format('CREATE TRIGGER %1$s_added AFTER INSERT ON %1$s REFERENCING NEW TABLE AS is_now
            FOR EACH STATEMENT EXECUTE FUNCTION sbc_log_change()', changing);
        EXECUTE format('CREATE TRIGGER %1$s_changed AFTER UPDATE ON %1$s REFERENCING OLD TABLE AS was NEW TABLE AS is_now
            FOR EACH STATEMENT EXECUTE FUNCTION sbc_log_change()', changing);
        EXECUTE format('CREATE TRIGGER %1$s_deleted AFTER DELETE ON %1$s REFERENCING OLD TABLE AS was
            FOR EACH STATEMENT EXECUTE FUNCTION sbc_log_change()', changing);
        EXECUTE format('CREATE TRIGGER %1$s_emptied AFTER TRUNCATE ON %1$s
            FOR EACH STATEMENT EXECUTE FUNCTION sbc_log_change()', changing);
    END LOOP;
END $$;
