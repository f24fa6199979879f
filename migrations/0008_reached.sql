-- Who answered: request_uri is what was dialled, which after a transfer is a token, and after a forwarding or a redirection somebody else.
ALTER TABLE call
    -- An AOR, or the number and host that a trunk was sent.
    ADD COLUMN reached text,
    -- The Request-URI that it got: of a phone its Contact.
    ADD COLUMN reached_uri text;
