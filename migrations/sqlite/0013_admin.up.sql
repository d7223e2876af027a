-- What the operator does through the admin socket, on SQLite. The same tables, columns and meanings as in
-- ../postgres/0013_admin.up.sql; who wrote what is said as in 0001_initial.up.sql.

-- Whether the operator has suspended the account: its credentials open nothing until he resumes it.
ALTER TABLE accounts ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1));
-- Every node looks now and then whether who is connected to it has been suspended.
CREATE INDEX accounts_suspended ON accounts (aci) WHERE suspended;

-- The operator's acts, and what he tried, in a chain of hashes. Its ends are in `settings`, under `admin_log`.
CREATE TABLE admin_log (
    -- Its place. Written by the server, without gaps.
    seq INTEGER NOT NULL PRIMARY KEY,
    -- When, in minutes since 1970-01-01 UTC. Written by the server.
    minute INTEGER NOT NULL,
    -- What, by its number in a closed set. Written by the server.
    act INTEGER NOT NULL,
    -- What came of it, likewise.
    outcome INTEGER NOT NULL,
    -- Whom it was about: HMAC of its id under a key that is not in the database. Written by the server.
    target BLOB,
    -- The user of the machine who did it. Written by the server.
    uid INTEGER NOT NULL,
    -- SHA-256 of the hash before and of this row. Written by the server.
    hash BLOB NOT NULL
) STRICT;
