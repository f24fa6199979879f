-- A trunk whose requests come over TLS may be known by the name in its certificate (RFC 5922): a SIP URI's host or a DNS name.
ALTER TABLE trunk ADD COLUMN certificate_name text CHECK (certificate_name <> '');
