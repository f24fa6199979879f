-- Bindings name their realm and listener instead of counting them: a configuration whose realms come in another order finds them.
-- Rows of before can't be told apart any more; their phones register again.
DELETE FROM binding;
ALTER TABLE binding DROP CONSTRAINT binding_pkey;
ALTER TABLE binding DROP COLUMN realm;
ALTER TABLE binding
    ADD COLUMN realm text NOT NULL,
    -- Transport and local address, as in `listen`: udp:192.0.2.1:5060.
    ADD COLUMN listener text NOT NULL;
-- Of hashes: an index row has room for 2,704 octets, and what a phone calls its Contact must not decide whether it fits.
CREATE UNIQUE INDEX binding_key ON binding (node, md5(aor), md5(uri));
CREATE INDEX binding_expires_at ON binding (node, expires_at);
