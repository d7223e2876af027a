-- Sessions that devices open beside their password, and the keys that sign their access tokens, on PostgreSQL. The same
-- tables, columns and meanings as in ../sqlite/0011_tokens.up.sql; who wrote what is said as in 0001_initial.up.sql.

-- Sessions with tokens. What opens the device's queue travels in the tokens and is not here.
CREATE TABLE token_sessions (
    -- The session's random name. Written by the server.
    id UUID NOT NULL PRIMARY KEY,
    -- The device, by its queue: with the device, or a new one in its place, the session is gone.
    mailbox BIGINT NOT NULL REFERENCES devices (mailbox) ON DELETE CASCADE,
    -- SHA-256 of the one refresh token that is good now. Written by the server.
    refresh BYTEA NOT NULL CHECK (octet_length(refresh) = 32),
    -- The day on which the session was opened, for its owner's list. Written by the server.
    created INTEGER NOT NULL,
    -- The first day on which it is over. Every refresh moves it. Written by the server.
    expires INTEGER NOT NULL
);
-- Sessions go with their device, are listed for it and are limited for each.
CREATE INDEX token_sessions_device ON token_sessions (mailbox);
-- Finds those whose day has come.
CREATE INDEX token_sessions_expires ON token_sessions (expires);

-- Keys that sign access tokens, the same for all nodes. They are about nobody.
CREATE TABLE token_keys (
    -- The public half (Ed25519), which anyone may fetch. Written by the server.
    public BYTEA NOT NULL PRIMARY KEY CHECK (octet_length(public) = 32),
    -- The private half, sealed under a key that is not in the database. Written by the server.
    sealed BYTEA NOT NULL,
    -- When it was made, in milliseconds since 1970-01-01 UTC: the latest signs. Written by the server.
    created BIGINT NOT NULL,
    -- When it is dropped, if another signs in its place; in milliseconds as well. Written by the server.
    until BIGINT
);

-- See 0009_no_samples.up.sql.
ALTER TABLE token_sessions ALTER COLUMN id SET STATISTICS 0;
ALTER TABLE token_sessions ALTER COLUMN mailbox SET STATISTICS 0;
ALTER TABLE token_sessions ALTER COLUMN refresh SET STATISTICS 0;
ALTER TABLE token_keys ALTER COLUMN public SET STATISTICS 0;
ALTER TABLE token_keys ALTER COLUMN sealed SET STATISTICS 0;
ALTER TABLE token_keys ALTER COLUMN created SET STATISTICS 0;
ALTER TABLE token_keys ALTER COLUMN until SET STATISTICS 0;
