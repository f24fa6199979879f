-- Time is billed by where the media was: off the relay, or on it while any direction still was. Together they are duration_ms.
ALTER TABLE call
    ADD COLUMN relayed_ms bigint,
    ADD COLUMN direct_ms bigint,
    -- RTP that arrived at the relay, UDP payload.
    ADD COLUMN relayed_octets bigint,
    ADD CONSTRAINT call_time_is_relayed_or_direct CHECK (relayed_ms + direct_ms = duration_ms);

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
