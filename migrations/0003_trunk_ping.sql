-- Trunks are asked by OPTIONS whether they live; NULL leaves one unasked.

ALTER TABLE trunk ADD COLUMN ping_seconds integer CHECK (ping_seconds > 0);
