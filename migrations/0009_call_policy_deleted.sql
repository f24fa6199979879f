-- What is no longer said of a call ends at once, as it began. For each row: a statement that deletes none tells nobody, or the SBC,
-- which deletes what was said of calls that are over, would be told of its own look for ever.
CREATE TRIGGER call_policy_deleted AFTER DELETE ON call_policy FOR EACH ROW EXECUTE FUNCTION sbc_notify_call_policy();
CREATE TRIGGER call_policy_emptied AFTER TRUNCATE ON call_policy FOR EACH STATEMENT EXECUTE FUNCTION sbc_notify_call_policy();
