-- What became of moves off the relay, by pairs of phones: written by the SBC, read by it and by operators. Deleting a row forgets
-- the pair; every node follows within seconds.
CREATE TABLE release_outcome (
    -- User-Agent in lower case, at most 100 characters. The ends of a pair are in order, the lesser one first.
    one_model       text NOT NULL,
    -- The /24 or /56 that its media was observed in: its NAT's, or its own.
    one_network     cidr NOT NULL,
    -- Whether a NAT had translated what its SDP said.
    one_nat         boolean NOT NULL,
    other_model     text NOT NULL,
    other_network   cidr NOT NULL,
    other_nat       boolean NOT NULL,
    -- Moves that were direct; those that failed or that a phone refused.
    worked          bigint NOT NULL DEFAULT 0,
    failed          bigint NOT NULL DEFAULT 0,
    -- Failures since it last worked. From the second one on it rests.
    failed_in_row   integer NOT NULL DEFAULT 0,
    worked_at       timestamptz,
    failed_at       timestamptz,
    -- No move is tried before: release.remember_seconds after the last failure.
    rests_until     timestamptz,
    PRIMARY KEY (one_model, one_network, one_nat, other_model, other_network, other_nat)
);
-- What nodes look for every few seconds.
CREATE INDEX release_outcome_failed ON release_outcome (failed_at DESC) WHERE failed_in_row > 0;

-- Each pair and how it fared; resting_until is NULL unless it rests now.
CREATE VIEW release_score AS
    SELECT one_model, one_network, one_nat, other_model, other_network, other_nat,
        worked + failed AS tried,
        worked,
        failed,
        round(100.0 * worked / (worked + failed)) AS worked_percent,
        greatest(worked_at, failed_at) AS tried_at,
        CASE WHEN rests_until > now() THEN rests_until END AS resting_until
    FROM release_outcome
    ORDER BY failed_in_row DESC, failed DESC;
