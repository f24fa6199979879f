-- Of a single call an operator may say whatever a realm may say of all (`release`), and leave it to its realms again:
-- SELECT sbc_call_release('<call>', 'realm'), or NULL.
ALTER TABLE call_policy DROP CONSTRAINT call_policy_release_check;
ALTER TABLE call_policy ADD CONSTRAINT call_policy_release_check CHECK (release IN ('anchor', 'video', 'allow', 'prefer'));

CREATE OR REPLACE FUNCTION sbc_call_release(of_call uuid, policy text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF policy IS NULL OR policy = 'realm' THEN
        DELETE FROM call_policy WHERE call = of_call;
    ELSIF policy IN ('anchor', 'video', 'allow', 'prefer') THEN
        INSERT INTO call_policy (call, release) VALUES (of_call, policy)
        ON CONFLICT (call) DO UPDATE SET release = EXCLUDED.release, changed_at = now(), changed_by = current_user;
    ELSE
        RAISE EXCEPTION 'no policy of calls is called "%"', policy
            USING ERRCODE = 'check_violation',
                HINT = 'Say anchor, video, allow or prefer, or realm to leave the call to its realms.';
    END IF;
END $$;
