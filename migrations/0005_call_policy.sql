-- What operators want of single calls while they last: SELECT sbc_call_release('<call>', 'anchor') brings its media back to the
-- relay at once and keeps it there; 'allow' and 'prefer' let it go, whatever its realms say.
CREATE TABLE call_policy (
    call        uuid PRIMARY KEY,
    release     text NOT NULL CHECK (release IN ('anchor', 'allow', 'prefer')),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    changed_by  text NOT NULL DEFAULT current_user
);

CREATE FUNCTION sbc_call_release(of_call uuid, policy text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO call_policy (call, release) VALUES (of_call, policy)
    ON CONFLICT (call) DO UPDATE SET release = EXCLUDED.release, changed_at = now(), changed_by = current_user;
$$;

CREATE FUNCTION sbc_notify_call_policy() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sbc_call_policy', '');
    RETURN NULL;
END $$;
CREATE TRIGGER call_policy_changed AFTER INSERT OR UPDATE ON call_policy FOR EACH STATEMENT EXECUTE FUNCTION sbc_notify_call_policy();
