-- User names, on PostgreSQL. The same tables, columns and meanings as in ../sqlite/0003_usernames.up.sql.

-- Names that are not free: owned, reserved for some minutes, or held after they were given up. One row per name, so that
-- its primary key is what lets a name have one owner.
CREATE TABLE usernames (
    -- Hash of the name, made by the client; the name itself is never sent. People choose names, so who has the table can
    -- try names out. Written by the client.
    hash BYTEA NOT NULL PRIMARY KEY CHECK (octet_length(hash) = 32),
    -- The account whose name it is, or was, or is about to be. NULL once that account is deleted: nobody gets the name
    -- back then, and nothing tells whose it was. Written by the server.
    aci UUID REFERENCES accounts (aci) ON DELETE SET NULL,
    -- Whether it is the account's name now. Written by the server. A row that is owned by no account lost it to a
    -- deletion just now; the sweeper makes a held name of it.
    owned BOOLEAN NOT NULL,
    -- When the account's reservation ends, in milliseconds since 1970-01-01 UTC. Lives for minutes. Written by the server.
    reserved_until BIGINT,
    -- The first day on which another account may have a name that was given up. Written by the server.
    held_until INTEGER,
    CHECK (NOT owned OR (reserved_until IS NULL AND held_until IS NULL))
);
-- Finds an account's names, also when it is deleted.
CREATE INDEX usernames_account ON usernames (aci);
-- An account has one name at most.
CREATE UNIQUE INDEX usernames_owned ON usernames (aci) WHERE owned;
-- Reservations and given up names, for the sweeper.
CREATE INDEX usernames_passing ON usernames (held_until, reserved_until) WHERE NOT owned;

-- Links to names, for people who are handed one. An account with a name has one at most, and none without.
CREATE TABLE username_links (
    -- The random name of the link, new with each change unless the client wants to keep it. Written by the server.
    handle UUID NOT NULL PRIMARY KEY,
    -- The account, so that its link can be replaced and goes with it. Written by the server.
    aci UUID NOT NULL UNIQUE REFERENCES accounts (aci) ON DELETE CASCADE,
    -- The name, encrypted by the client under a key that is in the link and never sent here.
    encrypted BYTEA NOT NULL
);
